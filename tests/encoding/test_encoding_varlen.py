"""Texts end to end in one row: what the flash kernel is handed, against a naive kernel where there is no GPU."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import make_base

import antiphon
from antiphon.encoding import Encoder
from antiphon.encoding.kernels import tiles
from antiphon.encoding.kernels.attention import candidates
from antiphon.encoding.kernels.varlen import Spans
from antiphon.encoding.tokenised import Reading
from antiphon.model.parity import compare, unlike_texts

TEXTS = [*unlike_texts()[:33], "word " * 60]
PROMPT = "find what answers it"


def naive_kernel(query, key, value, ends_q, ends_k, longest_q, longest_k, *, scale, window_size, enable_gqa):
    """Attention a text and a query at a time, by the kernel's rule: the last query stands at the last key."""
    assert query.shape[0] == ends_q[-1]
    assert key.shape[0] == ends_k[-1] == value.shape[0]
    assert longest_q == max(b - a for a, b in pairwise(ends_q.tolist()))
    assert longest_k == max(b - a for a, b in pairwise(ends_k.tolist()))
    assert enable_gqa == (query.shape[1] != key.shape[1])
    group = query.shape[1] // key.shape[1]
    left, right = window_size
    out = torch.empty(query.shape[0], query.shape[1], value.shape[2], dtype=query.dtype)
    for (q0, q1), (k0, k1) in zip(pairwise(ends_q.tolist()), pairwise(ends_k.tolist()), strict=True):
        for at in range(q0, q1):
            own = k1 - (q1 - at)
            first = k0 if left < 0 else max(k0, own - left)
            last = k1 - 1 if right < 0 else min(k1 - 1, own + right)
            seen = slice(first, last + 1)
            for head in range(query.shape[1]):
                keys, values = key[seen, head // group], value[seen, head // group]
                out[at, head] = (keys @ query[at, head] * scale).softmax(0) @ values
    return out


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr("antiphon.encoding.kernels.varlen.varlen_attn", naive_kernel)
    monkeypatch.setattr("antiphon.encoding.kernels.varlen.kernel_for", lambda device, dtype: "flash")


CELLS = [
    ("llama", "echo", "mean", False, {}),
    ("llama", "echo", "last", False, {}),
    ("llama", "classical", "mean", True, {}),
    ("mistral", "classical", "last", False, {"sliding_window": 12}),
    ("qwen3", "echo", "mean", False, {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    ("qwen2", "echo", "last", True, {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    ("gemma3", "classical", "mean", True, {"sliding_window": 12}),
]


@pytest.mark.parametrize(("shape", "template", "pooling", "bidirectional", "options"), CELLS)
def test_the_kernel_is_handed_what_makes_the_models_own_vectors(
    tmp_path, kernel, shape, template, pooling, bidirectional, options
):
    base = make_base(tmp_path / "base", shape, **options)
    model = antiphon.build(base, template, pooling=pooling, bidirectional=bidirectional, max_tokens=48, dtype="float32")
    encoder = Encoder(model, attention="varlen", budget=400)
    assert encoder.reason is None
    for prompt in (None, PROMPT):
        truth = np.asarray(model.encode(TEXTS, prompt=prompt, show_progress_bar=False), dtype=np.float32)
        same = compare(truth, encoder.encode(TEXTS, prompt=prompt))
        assert same.equal, same


def test_spans_lay_the_prefix_before_each_text(kernel):
    spans = Spans.of([3, 2], 2, torch.device("cpu"), torch.float32)
    assert spans.queries.tolist() == [0, 3, 5]
    assert spans.keys.tolist() == [0, 5, 9]
    assert spans.order.tolist() == [0, 1, 2, 3, 4, 0, 1, 5, 6]
    assert (spans.longest_query, spans.longest_key) == (3, 5)
    assert spans.last().queries.tolist() == [0, 1, 2]
    assert spans.last().longest_query == 1


@pytest.mark.parametrize(
    ("template", "pooling", "fewer"), [("echo", "last", 1), ("echo", "mean", 0), ("classical", "mean", 0)]
)
def test_the_last_layer_asks_only_where_the_last_token_is_pooled(
    tmp_path, kernel, monkeypatch, template, pooling, fewer
):
    asked: list[tuple[int, int]] = []

    def watched(query, key, *given, **named):
        asked.append((len(query), len(key)))
        return naive_kernel(query, key, *given, **named)

    monkeypatch.setattr("antiphon.encoding.kernels.varlen.varlen_attn", watched)
    model = antiphon.build(make_base(tmp_path / "base"), template, pooling=pooling, max_tokens=48, dtype="float32")
    encoder = Encoder(model, attention="varlen")
    asked.clear()
    encoder._runner.run([f"{number} words " * 20 for number in range(3)], Reading("", None), share=False)
    layers = model[0].model.config.num_hidden_layers
    assert [queries < keys for queries, keys in asked] == [False] * (layers - fewer) + [True] * fewer


def as_on_a_gpu(monkeypatch) -> None:
    """Let the calls be those of a GPU, which are not timed, and texts end to end be for its kernel."""
    monkeypatch.setattr("antiphon.encoding.kernels.varlen.kernel_for", lambda device, dtype: "flash")
    monkeypatch.setattr("antiphon.encoding.runner.candidates", lambda device, dtype: ("varlen", "sdpa"))
    monkeypatch.setattr("antiphon.encoding.runner.fastest_first", lambda calls, model, dtype: calls)


def test_what_the_kernel_cannot_do_takes_the_next_call(tmp_path, kernel, monkeypatch):
    """Gemma 2 caps its scores; and without a GPU the real kernel does not run at all."""
    as_on_a_gpu(monkeypatch)
    capped = antiphon.build(
        make_base(tmp_path / "gemma2", "gemma2"), "echo", pooling="mean", max_tokens=64, dtype="float32"
    )
    encoder = Encoder(capped)
    assert encoder.reason is None
    assert encoder.mode == "sdpa"
    monkeypatch.undo()
    as_on_a_gpu(monkeypatch)
    plain = antiphon.build(make_base(tmp_path / "llama"), "echo", pooling="mean", max_tokens=64, dtype="float32")
    encoder = Encoder(plain)
    assert encoder.reason is None
    assert encoder.mode == "sdpa"
    assert "running it packed fails" in Encoder(plain, attention="varlen").reason


def test_calls_by_device_and_dtype():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert candidates(gpu, torch.bfloat16) == ("varlen", "sdpa")
    assert candidates(gpu, torch.float32) == ("sdpa",)
    assert candidates(cpu, torch.bfloat16)[-2:] == ("matmul", "sdpa")
    assert ("varlen" in candidates(cpu, torch.bfloat16)) == (tiles.SOURCE.missing() is None)
    assert candidates(cpu, torch.float32) == ("varlen", "sdpa")
