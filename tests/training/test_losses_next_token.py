"""Causal language modelling against transformers' own loss, and which tokens are predicted."""

from __future__ import annotations

import pytest
import torch
from conftest import make_base
from oracle import Oracle, check_learned

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.training.losses import NextTokenLoss, NextTokenSettings, next_token_collator
from antiphon.training.losses.next_token import TARGETS, NextTokenPreprocessor
from antiphon.training.losses.plain_texts import IGNORED

TEXTS = ["words that are to be predicted, many of them", "short", "", "a </s> typed", "x " * 200]


def causal(base, **options):
    return antiphon.build(base, max_tokens=64, device="cpu", dtype="float32", **options)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("template", ["echo", "classical"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_loss_and_gradients_are_those_of_transformers(tmp_path, tied, template, packed):
    base = make_base(tmp_path / "base", tie_word_embeddings=tied)
    model, oracle = causal(base, template=template), Oracle(base)
    batch = next_token_collator(model)([{"text": text} for text in TEXTS])
    column = {key.removeprefix("text_"): value for key, value in batch.items()}
    wanted = oracle.model(
        input_ids=column["input_ids"], attention_mask=column["attention_mask"], labels=column[TARGETS], use_cache=False
    ).loss
    found = NextTokenLoss(model, NextTokenSettings(packed=packed))([column])
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    check_learned(model, found, oracle, wanted)


@pytest.mark.parametrize("bos", [True, False])
def test_every_token_of_a_text_is_predicted_but_the_first_and_the_end(tmp_path, bos):
    base = make_base(tmp_path / "base", bos=bos)
    preprocess = NextTokenPreprocessor(causal(base))
    batch = preprocess(["many plain words stand here in a row", "two words"])
    ids, mask, targets = batch["input_ids"], batch["attention_mask"].bool(), batch[TARGETS]
    end = torch.zeros_like(mask)
    end[torch.arange(2), mask.sum(dim=1) - 1] = True
    assert (ids[end] == 2).all()
    predicted = mask & ~end
    predicted[:, 0] = False  # BOS, or what nothing stands before
    assert torch.equal(targets != IGNORED, predicted)
    assert torch.equal(targets[predicted], ids[predicted])


def test_blocks_predict_all_but_the_beginnings_of_texts(tiny_base):
    model = causal(tiny_base)
    preprocess = NextTokenPreprocessor(model)
    bos = preprocess.texts.pieces.specials.bos
    batch = preprocess([[bos, 7, 8, bos, 9], [7, 8, 9, 10, 11]])
    assert batch[TARGETS].tolist() == [[IGNORED, 7, 8, IGNORED, 9], [IGNORED, 8, 9, 10, 11]]


def test_no_token_at_all_is_no_nan(tiny_base):
    model = causal(tiny_base)
    assert NextTokenLoss(model)([NextTokenPreprocessor(model)([""])]).item() == 0.0


def test_clear_errors(tiny_base):
    model = causal(tiny_base)
    with pytest.raises(DataError, match="next_token_collator"):
        NextTokenLoss(model)([model.preprocess(["x"])])
    with pytest.raises(ConfigError, match="bidirectional, so it would read what it has to predict"):
        NextTokenLoss(causal(tiny_base, bidirectional=True, pooling="mean"))
