"""What build accepts and refuses, bidirectional attention, lengths, and what sentence-transformers users expect."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import make_base
from transformers import BertConfig, BertLMHeadModel

import antiphon
from antiphon.errors import ConfigError, ModelError
from antiphon.model.parity import compare, unlike_texts


def test_sentence_transformers_habits_work(tiny_base):
    model = antiphon.build(
        tiny_base, "echo", prompts={"query": "Find the answer", "sts": "Say the same"}, max_tokens=128
    )
    texts = unlike_texts()
    assert compare(model.encode_query(texts), model.encode(texts, prompt="Find the answer")).equal
    assert compare(model.encode(texts, prompt_name="sts"), model.encode(texts, prompt="Say the same")).equal
    assert not compare(model.encode_query(texts), model.encode_document(texts)).equal
    assert model.encode("one text").shape == (32,) == (model.get_embedding_dimension(),)
    assert model.encode([]).shape[0] == 0
    assert model.similarity(model.encode(texts), model.encode(texts)).shape == (len(texts), len(texts))
    assert model.similarity_fn_name == "cosine"
    tensors = model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    assert torch.allclose(tensors.norm(dim=1), torch.ones(len(texts)), atol=1e-5)
    assert model.encode(texts, truncate_dim=8).shape == (len(texts), 8)
    states = model.encode(["ab", "a longer text"], output_value="token_embeddings")
    assert states[0].shape[0] < states[1].shape[0]


def test_bidirectional_sees_later_tokens(tiny_base):
    causal, both = (
        antiphon.build(tiny_base, "classical", max_tokens=128, bidirectional=both, dtype="float32")
        for both in (False, True)
    )
    assert both[0].model.config.is_causal is False
    states = {
        name: [model.encode(text, output_value="token_embeddings")[2] for text in ("one two three", "one two four")]
        for name, model in (("causal", causal), ("both", both))
    }
    assert torch.allclose(*states["causal"], atol=1e-5)
    assert not torch.allclose(*states["both"], atol=1e-2)


def test_a_family_that_stays_causal_is_refused(tmp_path):
    base = make_base(tmp_path / "stablelm", "stablelm")
    antiphon.build(base, max_tokens=128)
    with pytest.raises(ModelError, match=r"stablelm stays causal although config\.is_causal is False"):
        antiphon.build(base, max_tokens=128, bidirectional=True)


def test_a_model_that_is_not_causal_is_refused(tiny_base, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(tiny_base, folder)
    (folder / "model.safetensors").unlink()
    config = BertConfig(
        vocab_size=800, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        is_decoder=False, initializer_range=0.2,
    )  # fmt: skip
    BertLMHeadModel(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="bert is no causal language model"):
        antiphon.build(folder, max_tokens=128)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"template": "ekho"}, "Did you mean 'echo'"),
        ({"pooling": "max"}, "There is no pooling 'max'; take one of last, mean, weighted_mean"),
        ({"dtype": "int3"}, "There is no dtype 'int3'"),
        ({"max_tokens": 3}, "max_tokens is 3"),
        ({"max_tokens": 500}, r"pass max_tokens=\d+ or less"),
        ({"max_tokens": 9}, "leaves no room"),
        ({"prompts": {"query": "Find"}, "pooling": "last", "max_tokens": 128}, "takes no instruction"),
        ({"template": "chat"}, "needs a tokenizer with a chat template"),
    ],
)
def test_a_setting_that_cannot_be_used_says_why(options, sentence, tmp_path):
    base = make_base(tmp_path / "base")
    with pytest.raises(ConfigError, match=sentence):
        antiphon.build(base, **options)


def test_the_largest_length_that_the_error_names_is_accepted(tiny_base):
    with pytest.raises(ConfigError) as caught:
        antiphon.build(tiny_base, max_tokens=500)
    named = int(str(caught.value).split("max_tokens=")[-1].split(" ")[0])
    antiphon.build(tiny_base, max_tokens=named)
    with pytest.raises(ConfigError):
        antiphon.build(tiny_base, max_tokens=named + 1)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder), "There is no folder"),
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "cannot be loaded"),
        (lambda folder: _without(folder, "eos_token"), "names no EOS token"),
    ],
)
def test_a_base_that_cannot_be_an_embedder_says_why(spoil, sentence, tmp_path):
    base = make_base(tmp_path / "base")
    spoil(base)
    with pytest.raises(ModelError, match=sentence):
        antiphon.build(base, max_tokens=128)


def _without(folder, key):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))


def test_pooling_sums_in_fp32():
    from antiphon.modules import pool_mean

    states = torch.full((1, 3000, 1), 1.0, dtype=torch.bfloat16)
    states[0, 0] = 300.0
    mean = pool_mean(states, torch.ones(1, 3000, dtype=torch.long))
    assert mean.item() == pytest.approx((300 + 2999) / 3000, rel=1e-6)
    assert np.isfinite(pool_mean(torch.tensor([[[1.0], [torch.nan]]]), torch.tensor([[1, 0]])).numpy()).all()
