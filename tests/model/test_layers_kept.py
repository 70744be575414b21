"""A model with the first layers only: the states of the whole one there, stock to every reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_base
from transformers import AutoModelForCausalLM

import antiphon
from antiphon.errors import ConfigError, ModelError
from antiphon.model.parity import between, unlike_texts


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2", "smollm3", "phi", "gpt_neox"])
def test_states_are_those_of_the_whole_model_behind_its_norm(tmp_path, architecture):
    base = make_base(tmp_path / "base", architecture, num_hidden_layers=4)
    model = antiphon.build(base, pooling="last", max_tokens=64, layers=2, dtype="float32")
    features = model.preprocess(unlike_texts()[:4])
    whole = AutoModelForCausalLM.from_pretrained(base).base_model.eval()
    given = {key: features[key] for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        states = whole(**given, output_hidden_states=True).hidden_states[2]
        norm = next(part for name, part in whole.named_children() if "norm" in name)
        wanted = norm(states)
        found = model[0].model.eval()(**given).last_hidden_state
    kept = given["attention_mask"].bool()
    np.testing.assert_allclose(found[kept], wanted[kept], atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_saved_exported_and_encoded_it_stays_the_same(tmp_path, architecture):
    base = make_base(tmp_path / "base", architecture, num_hidden_layers=4, tie_word_embeddings=False)
    model = antiphon.build(base, max_tokens=64, layers=3, dtype="float32")
    antiphon.save(model, tmp_path / "saved")
    loaded = antiphon.load(tmp_path / "saved")
    assert loaded[0].model.config.num_hidden_layers == 3
    assert between(model, loaded).equal
    assert antiphon.Encoder(loaded).reason is None


@pytest.mark.parametrize("layers", [0, -1, 1.5, True, "two"])
def test_what_is_no_number_of_layers_is_refused(tiny_base, layers):
    with pytest.raises(ConfigError, match="layers is"):
        antiphon.build(tiny_base, layers=layers)


def test_more_layers_than_there_are_are_refused(tiny_base):
    with pytest.raises(ConfigError, match="layers is 9 and the model has 2"):
        antiphon.build(tiny_base, layers=9, max_tokens=64)


def test_a_decoder_whose_layers_cannot_be_told_is_refused(tmp_path):
    base = make_base(tmp_path / "base", "gptj")
    with pytest.raises(ModelError, match="cannot be told"):
        antiphon.build(base, layers=1, max_tokens=64)
