"""Information in nats against a hand-written loop, and on a vector that holds the answer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from oracle import Oracle

import antiphon
from antiphon.errors import DataError
from antiphon.training.losses import ReconstructionLoss, content_collator, information

PAIRS = [
    ("red apples", "fruit of the orchard"),
    ("a blue sea, wide and deep", "waves"),
    ("", "an empty text on the other side"),
]


def language_model_loss(oracle, text):
    """Sum of the nats of a text's tokens after BOS, by the family's own causal LM; and how many there are."""
    ids = oracle.ids(" " + text, first=False) if text else []
    opening = (
        oracle.tokenizer.bos_token_id if oracle.tokenizer.bos_token_id is not None else oracle.tokenizer.eos_token_id
    )
    logits = oracle.model(input_ids=torch.tensor([[opening, *ids]]), use_cache=False).logits[0]
    return F.cross_entropy(logits[:-1], torch.tensor(ids, dtype=torch.long), reduction="sum").item(), len(ids)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_without_a_vector_it_is_the_models_own_loss(tmp_path, tied, bos):
    base = make_base(tmp_path / "base", tie_word_embeddings=tied, bos=bos)
    model, oracle = antiphon.build(base, "echo", pooling="last", max_tokens=64, device="cpu"), Oracle(base)
    found = information(model, PAIRS, batch_size=2)
    for told, column in ((found.query_to_document, 1), (found.document_to_query, 0)):
        sums = [language_model_loss(oracle, pair[column]) for pair in PAIRS]
        tokens = sum(count for _, count in sums)
        assert told.tokens == tokens
        assert told.without == pytest.approx(sum(loss for loss, _ in sums) / tokens, abs=1e-5)
        assert told.nats == told.without - told.given
        assert told.bits == pytest.approx(told.nats / math.log(2))


def test_with_a_vector_it_is_the_reconstruction_loss(tiny_base):
    model = antiphon.build(tiny_base, "echo", pooling="last", max_tokens=64, device="cpu")
    found = information(model, PAIRS)
    assert not hasattr(model[0], "head")  # the model is as it was
    collate = content_collator(model)
    collate.router_mapping = {"anchor": "query", "positive": "document"}
    batch = collate([{"anchor": query, "positive": document} for query, document in PAIRS])
    features = [
        {key.removeprefix(column): value for key, value in batch.items() if key.startswith(column)}
        for column in ("anchor_", "positive_")
    ]
    loss = ReconstructionLoss(model)(features)
    assert found.query_to_document.given == pytest.approx(loss["ebq2d"].item() / 0.2, abs=1e-5)
    assert found.document_to_query.given == pytest.approx(loss["ebd2q"].item() / 0.8, abs=1e-5)
    assert model[0].head.weight.requires_grad
    information(model, PAIRS)
    assert model[0].head.weight.requires_grad


def test_batches_change_nothing(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=64, device="cpu").train()
    one, many = (information(model, PAIRS, batch_size=size) for size in (1, 8))
    assert one.query_to_document.given == pytest.approx(many.query_to_document.given, abs=1e-5)
    assert one.document_to_query.without == pytest.approx(many.document_to_query.without, abs=1e-5)
    assert model.training


def test_training_makes_the_vector_tell(tiny_base):
    """After fitting two pairs, each vector names its own other side, and the wrong vector does not."""
    model = antiphon.build(tiny_base, "echo", pooling="last", max_tokens=64, device="cpu").train()
    pairs = PAIRS[:2]
    batch = content_collator(model)([{"anchor": query, "positive": document} for query, document in pairs])
    features = [
        {key.removeprefix(column): value for key, value in batch.items() if key.startswith(column)}
        for column in ("anchor_", "positive_")
    ]
    loss = ReconstructionLoss(model)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        sum(loss(features).values()).backward()
        optimizer.step()
    right = information(model, pairs)
    swapped = [(pairs[0][0], pairs[1][1]), (pairs[1][0], pairs[0][1])]
    wrong = information(model, swapped)
    assert right.query_to_document.nats > 0.5
    assert right.query_to_document.given < wrong.query_to_document.given
    assert right.query_to_document.without == pytest.approx(wrong.query_to_document.without)


def test_clear_errors(tiny_base):
    model = antiphon.build(tiny_base, "echo", pooling="last", max_tokens=64, device="cpu")
    with pytest.raises(DataError, match="no pairs"):
        information(model, [])
    with pytest.raises(DataError, match="empty"):
        information(model, [("", "words")])
