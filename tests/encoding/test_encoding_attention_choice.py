"""The fastest attention call of a processor: timed once, kept, and the same from then on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import antiphon
from antiphon.encoding.attention_choice import fastest_first
from antiphon.encoding.encoder import Encoder
from antiphon.encoding.kernels.attention import attend_sdpa
from antiphon.encoding.kernels.filled_up import KEYS

CALLS = ("matmul", "sdpa")


@pytest.fixture
def model(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr("antiphon.encoding.measured.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("antiphon.encoding.kernels.varlen.kernel_for", lambda device, dtype: "lengths")
    return antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="bfloat16")


def timed(monkeypatch, **times) -> list[str]:
    """Let each call take so many seconds; returns the names that were timed, as they are."""
    asked: list[str] = []

    def seconds(work):
        name = next(name for name, call in calls.items() if call is work.func)
        asked.append(name)
        return times[name]

    from antiphon.encoding.kernels.attention import CALLS as calls

    monkeypatch.setattr("antiphon.encoding.attention_choice.seconds", seconds)
    return asked


def test_the_fastest_is_taken_and_timed_once(model, monkeypatch):
    asked = timed(monkeypatch, matmul=2.0, sdpa=1.0)
    assert fastest_first(CALLS, model[0].model, torch.bfloat16) == ("sdpa", "matmul")
    assert Encoder(model, widen=False).mode == "sdpa"
    assert asked == ["matmul", "sdpa"]
    timed(monkeypatch, matmul=0.5, sdpa=1.0)  # what is kept stands: the same bits in every run
    assert fastest_first(CALLS, model[0].model, torch.bfloat16) == ("sdpa", "matmul")


def test_the_other_one_where_that_is_faster(model, monkeypatch):
    timed(monkeypatch, matmul=1.0, sdpa=2.0)
    assert Encoder(model, widen=False).mode == "matmul"


def test_calls_of_a_gpu_and_in_float32_are_not_timed(model, monkeypatch):
    asked = timed(monkeypatch)
    on_gpu = SimpleNamespace(config=model[0].model.config, device=torch.device("cuda"))
    assert fastest_first(("varlen", "sdpa"), on_gpu, torch.bfloat16) == ("varlen", "sdpa")
    assert fastest_first(("varlen", "sdpa"), model[0].model, torch.float32) == ("varlen", "sdpa")
    assert fastest_first(("sdpa",), model[0].model, torch.float32) == ("sdpa",)
    assert not asked


def test_a_cache_that_cannot_be_written_still_gives_one_order_to_an_encoder(model, monkeypatch, tmp_path):
    (tmp_path / "attention").write_text("a file where the folder would be", encoding="utf-8")
    asked = timed(monkeypatch, matmul=2.0, sdpa=1.0)
    encoder = Encoder(model, widen=False)
    encoder.encode(["one", "two"])
    assert encoder.mode == "sdpa"
    assert asked == ["matmul", "sdpa"]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (40, 40), (300, 300), (290, 310), (3, 70)])
def test_keys_that_fill_a_block_are_seen_by_nobody(causal, queries, keys):
    """Against the definition in float64: each query's softmax over the keys that it sees."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, size, 16) for heads, size in ((4, queries), (2, keys), (2, keys)))
    seen = (
        torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else torch.rand(queries, keys) < 0.7
    )
    seen[:, 0] = True
    scores = query.double() @ key.double().repeat_interleave(2, 1).transpose(2, 3) / 4
    right = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value.double().repeat_interleave(2, 1)
    filled = F.pad(seen, (0, -keys % KEYS))
    least = torch.finfo(torch.bfloat16).min
    mask = torch.zeros(2, 1, *filled.shape).masked_fill(~filled, least).bfloat16()
    given = [part.bfloat16() for part in (query, key, value)]
    found, _ = attend_sdpa(torch.nn.Module(), *given, mask, is_causal=causal)
    assert found.shape == (2, queries, 4, 16)
    assert (found.transpose(1, 2).double() - right).abs().max() < 0.03
