"""Texts laid into rows: nothing is lost, nobody sees a stranger, and vectors and gradients stay what they were."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from conftest import make_base
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from test_losses_contrastive import built, learned, same

import antiphon
from antiphon import compat
from antiphon.encoding.kernels import folded
from antiphon.encoding.layout import Group, lay_out, shared_beginning
from antiphon.encoding.masks import PADDING, packed_mask
from antiphon.training.losses.packer import Packer, _groups, width_of

TEXTS = ["a text", "", "a much longer text, which says more than the others do", "one more", "x", "and the last " * 4]
ARCHITECTURES = ["llama", "qwen2", "qwen3", "mistral", "gemma3"]


@st.composite
def batches(draw):
    """Ids of texts of one or two groups, some of which begin alike, and a window."""
    groups = []
    for first in (100, 200)[: draw(st.integers(1, 2))]:
        beginning = list(range(first, first + draw(st.integers(0, 6))))
        tails = draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=6))
        groups.append([beginning + tail for tail in tails])
    return groups, draw(st.booleans()), draw(st.integers(0, 20)), draw(st.sampled_from([None, 1, 3, 50]))


@settings(deadline=None, max_examples=150)
@given(batches())
def test_every_token_is_there_and_sees_its_own_text_alone(batch):
    columns, causal, spare, window = batch
    texts = [text for column in columns for text in column]
    ids, lengths = np.concatenate([np.array(text) for text in texts]), np.array([len(text) for text in texts])
    groups = _groups(ids, lengths, [len(column) for column in columns], share=causal)
    layout = lay_out(lengths, groups, width_of(lengths, groups) + spare)
    assert (ids[layout.token_RW.ravel()[layout.place_N]] == ids).all()
    steps = np.concatenate([np.arange(length) for length in lengths])
    assert (layout.position_RW.ravel()[layout.place_N] == steps).all()
    assert int((layout.segment_RW != PADDING).sum()) == len(set(layout.place_N.tolist()))  # no other place is taken
    segment_RW, position_RW = torch.from_numpy(layout.segment_RW), torch.from_numpy(layout.position_RW)
    sees = packed_mask(segment_RW, position_RW, prefix=0, causal=causal, window=window)
    width = layout.token_RW.shape[1]
    starts = np.cumsum(lengths) - lengths
    for start, length in zip(starts, lengths, strict=True):
        places = layout.place_N[start : start + length]
        assert len(set(places.tolist())) == length
        assert len({int(place) // width for place in places}) == 1  # one row
        for step, place in enumerate(places):
            row, column = divmod(int(place), width)
            near = [
                int(other) % width
                for back, other in enumerate(places)
                if (back <= step or not causal)
                and (window is None or (step - back < window if causal else abs(step - back) <= window))
            ]
            assert sees[row, 0, column].nonzero().flatten().tolist() == sorted(near)
    assert sees.any(dim=-1).all()  # a row of nothing would be NaN


def test_what_texts_share_stands_once_in_a_row():
    texts = [[1, 2, 3, 4, 5, tail] for tail in range(50, 58)]
    ids, lengths = np.concatenate(texts), np.full(8, 6)
    assert shared_beginning(ids, lengths) == 5
    groups = _groups(ids, lengths, [8], share=True)
    layout = lay_out(lengths, groups, 40)
    assert layout.token_RW.shape == (1, 40)
    assert int((layout.segment_RW != PADDING).sum()) == 5 + 8
    assert [group.shared for group in _groups(ids, lengths, [8], share=False)] == [0]
    # a beginning is never all of a text, and a short one is not worth a row of its own
    assert shared_beginning(np.array([1, 2, 1, 2]), np.array([2, 2])) == 1
    assert [group.shared for group in _groups(np.array([1, 2, 1, 2]), np.array([2, 2]), [2], share=True)] == [0]


def test_rows_are_filled():
    lengths = np.random.default_rng(0).integers(16, 300, 200)
    layout = lay_out(lengths, [Group(np.arange(200))], 300)
    assert layout.fill > 0.9


def columns_of(model, prompt="the instruction of all of them"):
    queries = model.preprocess(TEXTS, prompt=antiphon.text.template.prompt_for(model, prompt, "query"), task="query")
    return [queries, model.preprocess(TEXTS[::-1], task="document")]


def weighed(vectors):
    weights = torch.randn(vectors[0].shape, generator=torch.Generator().manual_seed(0))
    return sum((vector * weights).sum() for vector in vectors)


def check_same(model, tolerance=1e-5):
    packer = Packer.of(model)
    assert packer is not None
    columns = columns_of(model)
    packed = packer.embed(model, columns)
    padded = [model(dict(column))["sentence_embedding"] for column in columns]
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    same(learned(model, weighed(packed)), learned(model, weighed(padded)), tolerance)


@pytest.mark.parametrize(
    ("template", "pooling"), [("echo", "mean"), ("echo", "last"), ("echo", "weighted_mean"), ("classical", "last")]
)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vectors_and_gradients_are_those_of_padded_texts(bases, architecture, bidirectional, template, pooling):
    check_same(built(bases[architecture], template, pooling, bidirectional=bidirectional), 1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_of_any_padding_side_and_attention(tiny_base, side, implementation, bidirectional):
    model = built(tiny_base, bidirectional=bidirectional)
    model.tokenizer.padding_side = side
    model[0].model.set_attn_implementation(implementation)
    check_same(model)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "gemma3"])
def test_with_a_window_that_texts_exceed(tmp_path, architecture, bidirectional):
    options = {"qwen3": {"use_sliding_window": True, "max_window_layers": 1}}.get(architecture, {})
    base = make_base(tmp_path / "base", architecture, sliding_window=8, **options)
    check_same(built(base, bidirectional=bidirectional), 1e-4)


def test_with_lora_checkpointing_and_normalize(tiny_base):
    model = built(tiny_base)
    model.append(Normalize())
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    check_same(model)


def test_in_bf16(tiny_base):
    model = built(tiny_base, dtype="bfloat16")
    packer = Packer.of(model)
    columns = columns_of(model)
    with torch.no_grad():
        packed = packer.embed(model, columns)
        padded = [model(dict(column))["sentence_embedding"] for column in columns]
    for one, other in zip(packed, padded, strict=True):
        assert torch.cosine_similarity(one, other).min() > 0.995
    model = built(tiny_base)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        under = Packer.of(model).embed(model, columns)
    assert torch.cosine_similarity(under[0], padded[0]).min() > 0.99


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_narrow_rows_in_16_bits_are_multiplied_out_and_the_gradients_stay(pooling, wrapped, monkeypatch):
    """Also with a forward that is under autocast by itself, as the trainer's is."""
    model = antiphon.build("nano", "classical", pooling=pooling, dtype="float32", device="cpu").train()
    columns, packer = columns_of(model), Packer.of(model)
    calls: list[str] = []
    given = compat.set_attention
    monkeypatch.setattr(compat, "set_attention", lambda config, name: (calls.append(name), given(config, name)))

    def gradient():
        vectors = packer.embed(model, columns)
        return learned(model, weighed(vectors))

    wanted = gradient()
    assert calls == ["sdpa", "sdpa"]
    if wrapped:
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = gradient()
        monkeypatch.setattr("antiphon.training.losses.packer.NARROW", 1)
        wide = gradient()
    assert calls[2:] == [folded.NAME, "sdpa"] * 2 + ["sdpa", "sdpa"]  # the check of products is the first of them
    assert compat.attention_of(model[0].model.config) == "sdpa"
    norm = sum(gradient.norm() ** 2 for gradient in wanted.values())
    off = [sum((one[name] - wanted[name]).norm() ** 2 for name in wanted) / norm for one in (narrow, wide)]
    assert 0 < off[0] < 2 * off[1] < 0.01


def test_products_that_are_farther_from_float32_are_not_taken(tiny_base, monkeypatch):
    model = built(tiny_base)
    columns, packer = columns_of(model), Packer.of(model)
    monkeypatch.setattr("antiphon.encoding.check.TIMES", {"largest": 0.0, "typical": 0.0})
    with torch.autocast("cpu", torch.bfloat16):
        learned(model, weighed(packer.embed(model, columns)))
    assert packer.products is False


def test_layers_that_run_again_keep_their_attention(tiny_base, monkeypatch):
    model = built(tiny_base)
    model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    columns, packer, calls = columns_of(model), Packer.of(model.train()), []
    monkeypatch.setattr(compat, "set_attention", lambda config, name: calls.append(name))
    with torch.autocast("cpu", torch.bfloat16):
        learned(model, weighed(packer.embed(model, columns)))
    assert set(calls) == {"sdpa"}


def test_features_are_left_as_they_are(tiny_base):
    for template, pooling in (("echo", "mean"), ("classical", "last")):
        model = built(tiny_base, template, pooling)
        columns = columns_of(model)
        before = [dict(column) for column in columns]
        Packer.of(model).embed(model, columns)
        assert all(one.keys() == other.keys() for one, other in zip(columns, before, strict=True))


def test_models_that_cannot_are_padded_and_the_log_says_why(tiny_base, caplog):
    def reason(model):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="antiphon"):
            assert Packer.of(model) is None
        return caplog.records[-1].getMessage()

    model = built(tiny_base)
    model.append(Dense(32, 16))
    assert "Dense behind pooling has weights" in reason(model)
    model = built(tiny_base, "classical", "last")
    model[1].include_prompt = False
    assert "leaves out the prompt" in reason(model)
    model = built(tiny_base)
    model[0].model.config.layer_types = ["full_attention", "linear_attention"]
    assert "linear_attention" in reason(model)
    model = built(tiny_base)
    model[0].model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in reason(model)


@pytest.mark.parametrize(("template", "pooling"), [("echo", "mean"), ("echo", "last"), ("eol", "last")])
def test_nano_trains_packed_in_16_bits(template, pooling):
    """Its last states differ by more than the limit from batch to batch, packed or not: the limit knows that."""
    assert Packer.of(antiphon.build("nano", template, pooling=pooling, max_tokens=128, dtype="bfloat16")) is not None


@pytest.mark.falls_back
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_passes_over_positions_is_found_out(dtype, caplog):
    """The check before a model is trusted can fail, in 16 bits too: this one numbers a row's places from end to end."""
    model = antiphon.build("nano", "echo", pooling="last", max_tokens=128, dtype=dtype)
    forward = model[0].model.forward

    def deaf(*given, position_ids=None, **options):
        return forward(*given, **options)

    model[0].model.forward = deaf
    model[0].model_forward_params = {"input_ids", "attention_mask", "position_ids", "use_cache", "return_dict"}
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        assert Packer.of(model) is None
    assert "its packed vectors differ" in caplog.records[-1].getMessage()
