"""Decoding from a vector: greedy decoding equals whole passes without a cache, drawing is seeded."""

from __future__ import annotations

import pytest
import torch
from conftest import make_base

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.training.losses.head import head_of
from antiphon.training.reconstruct import reconstruct


def greedy_oracle(model, text, side, tokens):
    """The likeliest token, again and again, by whole passes of the family's own language model."""
    model.eval()
    features = model.preprocess([text], task=side)
    with torch.no_grad():
        embedded = model(features)["sentence_embedding"][:, None]
        ids = []
        for _ in range(tokens):
            keyword = {} if getattr(model[0].model.config, "is_causal", True) else {"is_causal": True}
            states = model[0].model(inputs_embeds=embedded, use_cache=False, **keyword).last_hidden_state
            chosen = int((states[0, -1] @ head_of(model, "frozen").weight.T).argmax())
            if chosen == model.tokenizer.eos_token_id:
                break
            ids.append(chosen)
            following = model[0].model.get_input_embeddings()(torch.tensor([[chosen]]))
            embedded = torch.cat([embedded, following], dim=1)
    return model.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_greedy_decoding_equals_whole_passes(tmp_path, tied, bidirectional):
    base = make_base(tmp_path / "base", tie_word_embeddings=tied)
    model = antiphon.build(
        base, "echo", pooling="last", bidirectional=bidirectional, max_tokens=128, dtype="float32", device="cpu"
    )
    for text, side in (("red apples", "query"), ("the sea at night", "document")):
        said = reconstruct(model, text, side=side, max_tokens=12)
        assert said == greedy_oracle(model, text, side, 12)
        assert said
    assert not hasattr(model[0], "head") or not tied


def test_drawing_is_seeded(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", device="cpu")
    drawn = [reconstruct(model, "a text", temperature=2.0, seed=seed, max_tokens=20) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    cold = reconstruct(model, "a text", temperature=1e-4, seed=5, max_tokens=20)
    assert cold == reconstruct(model, "a text", max_tokens=20)  # drawn from a point is greedy


def test_different_texts_give_different_words(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", device="cpu")
    assert reconstruct(model, "red apples") != reconstruct(model, "the walls of a castle, grey and old")


def test_what_cannot_be_decoded_is_a_sentence(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", device="cpu")
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        reconstruct(model, "a", max_tokens=0)
    with pytest.raises(ConfigError, match="temperature is -1"):
        reconstruct(model, "a", temperature=-1)
    with pytest.raises(DataError, match="no text"):
        reconstruct(model, "  ")
