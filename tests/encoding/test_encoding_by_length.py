"""Attention length by length in float32: against the definition in float64, and in the Encoder of any CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_base
from test_encoding_tiles import CASES, CPU, TEXTS, defined, states_of
from test_encoding_varlen import CELLS

import antiphon
from antiphon.encoding import Encoder
from antiphon.encoding.kernels.by_length import neighbours
from antiphon.encoding.kernels.varlen import Spans, attend
from antiphon.encoding.tokenised import Reading
from antiphon.model.parity import compare

NEAR = 2e-5


def handed(heads: tuple[int, int, int], tokens: int, prefix: int, *, by_token: bool = True, scale: float = 1.0):
    """Queries, keys and values in float32; heads, key heads, head width."""
    count, shared, width = heads
    query = states_of(count, tokens, width, by_token=by_token, scale=scale).float()
    return query, *(states_of(shared, prefix + tokens, width, by_token=by_token).float() for _ in range(2))


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize(
    ("lengths", "prefix", "shape", "reach"), [*CASES, ([12, 12, 12, 9, 9, 4], 11, (6, 2, 32), (-1, 0))]
)
def test_it_is_the_softmax_over_what_is_seen(lengths, prefix, shape, reach, by_token):
    torch.manual_seed(0)
    query, key, value = handed(shape, sum(lengths), prefix, by_token=by_token, scale=3.0)
    spans = Spans.of(lengths, prefix, CPU, torch.float32)
    found = attend(query, key, value, spans, reach, None)
    right = defined(query, key, value, lengths, prefix, reach, shape[2] ** -0.5)
    assert found.shape == (1, sum(lengths), shape[0], shape[2])
    assert (found.double() - right).abs().max() < NEAR
    last = [sum(lengths[: number + 1]) - 1 for number in range(len(lengths))]
    pruned = attend(query[:, :, last], key, value, spans.last(), reach, None)
    alone = defined(query[:, :, last], key, value, lengths, prefix, reach, shape[2] ** -0.5, asked=1)
    assert (pruned.double() - alone).abs().max() < NEAR


def test_lengths_of_all_kinds_and_neighbours_of_one_length():
    draw = np.random.default_rng(0)
    for seed in range(40):
        torch.manual_seed(seed)
        lengths = np.repeat(draw.integers(1, [12, 300][seed % 2], size=4), draw.integers(1, 4, size=4)).tolist()
        prefix, shared, group = int(draw.integers(0, 70)), int(draw.integers(1, 4)), int(draw.integers(1, 5))
        width, reach = int(draw.integers(1, 40)) * 2, [(-1, 0), (-1, -1), (17, 0), (30, 9)][seed % 4]
        query, key, value = handed((shared * group, shared, width), sum(lengths), prefix)
        found = attend(query, key, value, Spans.of(lengths, prefix, CPU, torch.float32), reach, 0.1)
        right = defined(query, key, value, lengths, prefix, reach, 0.1)
        assert (found.double() - right).abs().max() < NEAR, (seed, lengths, prefix, width, reach)


def test_a_window_wider_than_a_text_needs_no_mask(monkeypatch):
    """PyTorch's call is faster where it is told that attention is causal."""
    asked = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "antiphon.encoding.kernels.by_length.F.scaled_dot_product_attention",
        lambda *given, **named: asked.append((named["is_causal"], named["attn_mask"] is None)) or real(*given, **named),
    )
    query, key, value = handed((4, 2, 16), 23, 0)
    spans = Spans.of([8, 15], 0, CPU, torch.float32)
    found = attend(query, key, value, spans, (7, 0), 0.25)
    assert asked == [(True, True), (False, False)]
    assert (found.double() - defined(query, key, value, [8, 15], 0, (7, 0), 0.25)).abs().max() < NEAR


def test_neighbours_are_counted_by_queries_and_keys():
    spans = Spans.of([4, 4, 2, 4], 3, CPU, torch.float32)
    assert list(neighbours(spans.queries, spans.keys)) == [(2, 4, 7), (1, 2, 5), (1, 4, 7)]
    assert list(neighbours(spans.last().queries, spans.keys)) == [(2, 1, 7), (1, 1, 5), (1, 1, 7)]


def test_what_is_not_a_number_stays_so_in_its_own_text():
    query, key, value = handed((4, 2, 32), 60, 0)
    value[0, 0, 40] = torch.nan
    broken = attend(query, key, value, Spans.of([30, 30], 0, CPU, torch.float32), (-1, 0), None).isnan().any(-1)[0]
    assert broken[40:, :2].all()
    assert not broken[:30].any()
    assert not broken[:, 2:].any()


@pytest.mark.parametrize(
    ("shape", "template", "pooling", "bidirectional", "options"), [*CELLS, ("llama", "classical", "last", False, {})]
)
def test_the_encoders_vectors_are_the_models_own(tmp_path, shape, template, pooling, bidirectional, options):
    base = make_base(tmp_path / "base", shape, **options)
    model = antiphon.build(base, template, pooling=pooling, bidirectional=bidirectional, max_tokens=48, dtype="float32")
    encoder = Encoder(model, budget=400)
    assert encoder.reason is None
    assert encoder.mode == "varlen"
    for prompt in (None, "find what answers it"):
        truth = np.asarray(model.encode(TEXTS, prompt=prompt, show_progress_bar=False), dtype=np.float32)
        same = compare(truth, encoder.encode(TEXTS, prompt=prompt))
        assert same.equal, same


def test_no_place_is_filled_up(tmp_path):
    """As many states are computed as texts have tokens."""
    model = antiphon.build(make_base(tmp_path / "base"), "classical", pooling="mean", max_tokens=48, dtype="float32")
    encoder = Encoder(model, budget=100)
    computed: list[int] = []
    inside = encoder._runner.decoder.model.layers[0].register_forward_hook(
        lambda layer, given, states: computed.append(states.shape[1])
    )
    texts = [f"{number} words " * (1 + number) for number in range(9)]
    encoder._runner.run(texts, Reading("", None), share=False)
    inside.remove()
    assert sum(computed) == int(model.preprocess(texts)["attention_mask"].sum())
    assert len(computed) > 1
