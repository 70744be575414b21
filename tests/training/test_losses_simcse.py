"""SimCSE: a text against itself under another dropout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from test_losses_contrastive import learned, same

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.training.losses import ContrastiveLoss, SimCSELoss, SimCSESettings, contrastive_collator

TEXTS = ["one text", "another text, a longer one", "a third", "and the last of them, which is the longest of all"]


def built(base, **options):
    return antiphon.build(base, "echo", max_tokens=64, dtype="float32", device="cpu", **options).train()


def column_of(model, texts=TEXTS):
    batch = contrastive_collator(model)([{"text": text} for text in texts])
    return {key.removeprefix("text_"): value for key, value in batch.items()}


@pytest.mark.parametrize("options", [{}, {"mini_batch_size": 4}, {"packed": False}], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_info_nce_of_two_passes(tiny_base, bidirectional, options):
    model = built(tiny_base, bidirectional=bidirectional)
    loss = SimCSELoss(model, SimCSESettings(**options))
    column = column_of(model)
    torch.manual_seed(3)
    found = loss([column])
    gradients = learned(model, found)
    torch.manual_seed(3)
    bare = {key: value for key, value in column.items() if key != "text_key"}
    together = not options  # without a cache both passes are one forward of packed rows
    first, second = loss._embed([bare, bare]) if together else [loss._embed([bare])[0] for _ in range(2)]
    cosines = F.cosine_similarity(first[:, None], second[None], dim=2)
    wanted = F.cross_entropy(20 * cosines, torch.arange(len(TEXTS)))
    assert not torch.allclose(first, second, atol=1e-3)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    same(gradients, learned(model, wanted))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
def test_dropout_acts_and_is_not_saved(bases, tmp_path, architecture):
    model = built(bases[architecture])
    SimCSELoss(model)
    features = model.preprocess(TEXTS)
    first, second = (model(dict(features))["sentence_embedding"] for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-3)
    again = antiphon.load(antiphon.save(model.eval(), tmp_path / "saved"), device="cpu").train()
    first, second = (again(dict(features))["sentence_embedding"] for _ in range(2))
    assert torch.equal(first, second)


def test_a_text_twice_in_a_batch_is_no_negative_of_itself(tiny_base):
    model = built(tiny_base).eval()
    with torch.no_grad():
        alike = SimCSELoss(model)([column_of(model, ["the same", "the same"])])
    assert alike.item() == pytest.approx(0.0, abs=1e-6)


def test_no_beginning_is_shared_under_dropout(tiny_base):
    """Texts that share a beginning would share what dropout leaves of it, and two passes would be more alike."""
    starts = {}
    for kind in (SimCSELoss, ContrastiveLoss):
        model = built(tiny_base)
        loss, caught = kind(model), []
        model[0].register_forward_hook(
            lambda module, given, out, caught=caught: caught.append(given[0]["position_ids"])
        )
        column = column_of(model)
        loss([column, column])
        (positions,) = caught
        starts[kind] = int(((positions[:, :-1] == 0) & (positions[:, 1:] == 1)).sum())
    assert starts[SimCSELoss] == 2 * len(TEXTS)
    assert starts[ContrastiveLoss] < 2 * len(TEXTS)


def test_what_cannot_be_asked(tiny_base, tmp_path):
    with pytest.raises(ConfigError, match="dropout"):
        SimCSESettings(dropout=0.0)
    with pytest.raises(ConfigError, match="temperature"):
        SimCSESettings(temperature=-1.0)
    with pytest.raises(DataError, match="a text column"):
        SimCSELoss(built(tiny_base))([])
    model = built(make_base(tmp_path / "base"))
    for layer in model[0].model.layers:
        del layer.self_attn.attention_dropout
    with pytest.raises(ConfigError, match="llama has no attention dropout"):
        SimCSELoss(model)
