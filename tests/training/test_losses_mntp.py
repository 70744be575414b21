"""Masked next token prediction against a hand-written loop, and what its masks are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from oracle import Oracle, check_learned

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.training.losses import MaskedNextTokenLoss, MaskedNextTokenSettings, MaskingSettings, masking_collator
from antiphon.training.losses.mntp import IGNORED, TARGETS, MaskingPreprocessor

TEXTS = ["words that are to be masked, many of them", "short", "", "a </s> typed", "x " * 200]


def bidirectional(base, **options):
    return antiphon.build(base, pooling="mean", max_tokens=64, bidirectional=True, device="cpu", **options)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("template", ["echo", "classical"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_equals_a_hand_written_loop(tmp_path, tied, template, packed):
    base = make_base(tmp_path / "base", tie_word_embeddings=tied)
    model, oracle = bidirectional(base, template=template), Oracle(base, bidirectional=True)
    torch.manual_seed(0)
    batch = masking_collator(model)([{"text": text} for text in TEXTS])
    column = {key.removeprefix("text_"): value for key, value in batch.items()}
    losses = []
    for ids, mask, targets in zip(column["input_ids"], column["attention_mask"], column[TARGETS], strict=True):
        length = int(mask.sum())
        logits = oracle.model(input_ids=ids[None, :length], use_cache=False).logits[0]
        for place in range(1, length):
            if targets[place] != IGNORED:
                losses.append(F.cross_entropy(logits[place - 1], targets[place]))
    assert len(losses) > 5
    found = MaskedNextTokenLoss(model, MaskedNextTokenSettings(packed=packed))([column])
    wanted = torch.stack(losses).mean()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    check_learned(model, found, oracle, wanted)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("style", ["bert", "all"])
def test_masks(tmp_path, style, bos):
    base = make_base(tmp_path / "base", bos=bos)
    model, plain = bidirectional(base), Oracle(base).tokenizer
    mask = plain.convert_tokens_to_ids("_")
    preprocess = MaskingPreprocessor(model, MaskingSettings(share=0.4, style=style))
    torch.manual_seed(0)
    batch = preprocess(["many plain words stand here in a row, and none is an underscore"] * 200)
    ids, targets = batch["input_ids"], batch[TARGETS]
    chosen = targets != IGNORED
    original = torch.where(chosen, targets, ids)
    assert torch.equal(original, original[:1].expand_as(original))  # what is hidden stands in the targets
    first, content = (1 if bos else 0), ids.shape[1] - 1
    assert not chosen[:, 0].any()  # BOS, or what nothing stands before
    assert not chosen[:, content].any()
    assert (original[:, content] == 2).all()
    share = chosen[:, max(1, first) : content].float().mean()
    assert share == pytest.approx(0.4, abs=0.03)
    masked = (ids[chosen] == mask).float().mean()
    kept = (ids[chosen] == targets[chosen]).float().mean()
    assert masked == pytest.approx(0.8 if style == "bert" else 1.0, abs=0.03 if style == "bert" else 0)
    assert kept == pytest.approx(0.1 if style == "bert" else 0.0, abs=0.03 if style == "bert" else 0)


def test_masks_follow_the_seed_and_lengths_the_model(tiny_base):
    model = bidirectional(tiny_base)
    preprocess = MaskingPreprocessor(model, MaskingSettings())
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(preprocess(TEXTS))
    assert torch.equal(drawn[0]["input_ids"], drawn[1]["input_ids"])
    assert not torch.equal(drawn[0][TARGETS], drawn[2][TARGETS])
    assert drawn[0]["attention_mask"].sum(dim=1).max() == 64
    assert drawn[0]["attention_mask"].sum(dim=1).min() == 2  # an empty text is BOS and EOS


def test_no_mask_at_all_is_no_nan(tiny_base):
    model = bidirectional(tiny_base)
    column = MaskingPreprocessor(model, MaskingSettings())([""])
    assert MaskedNextTokenLoss(model)([column]).item() == 0.0


def test_clear_errors(tiny_base):
    model = bidirectional(tiny_base)
    for bad in ({"share": 0}, {"share": 1.1}, {"style": "none"}):
        with pytest.raises(ConfigError):
            MaskingSettings(**bad)
    with pytest.raises(ConfigError, match="tokens to this model"):
        masking_collator(model, MaskingSettings(token="many words"))
    with pytest.raises(DataError, match="masking_collator"):
        MaskedNextTokenLoss(model)([model.preprocess(["x"])])
    with pytest.raises(ConfigError, match="causal"):
        MaskedNextTokenLoss(antiphon.build(tiny_base, max_tokens=64, device="cpu"))
