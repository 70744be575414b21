"""Attention by a processor's 16-bit products, in tiles or vectors: against the definition, in the Encoder, unbuilt."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from conftest import make_base
from test_encoding_varlen import CELLS

import antiphon
from antiphon.encoding import Encoder
from antiphon.encoding.kernels import tiles
from antiphon.encoding.kernels.attention import candidates
from antiphon.encoding.kernels.native import library
from antiphon.encoding.kernels.native.library import TILES, VECTORS, NativeSource
from antiphon.encoding.kernels.varlen import Spans, attend
from antiphon.errors import ModelError
from antiphon.model.parity import unlike_texts

CPU = torch.device("cpu")
needs_it = pytest.mark.skipif(tiles.SOURCE.missing() is not None, reason=f"{tiles.SOURCE.missing()}")
KEPT = (library._loaded, library._reason, library._tiles_permitted)
TEXTS = [*unlike_texts()[:33], "word " * 60]


@pytest.fixture(params=["tiles", "vectors"])
def build(request, monkeypatch):
    """Each of the two ways in which the kernel is built, where the processor has it."""
    source = NativeSource("attention", TILES if request.param == "tiles" else VECTORS)
    if source.missing() is not None:
        pytest.skip(source.missing())
    monkeypatch.setattr(tiles, "SOURCE", source)


def defined(query, key, value, lengths, prefix, reach, scaling, asked=None):
    """Each query's softmax over the keys that it sees, a text at a time, in float64: (1, T, H, d)."""
    query, key, value = (states.double() for states in (query, key, value))
    group, start, found = query.shape[1] // key.shape[1], 0, []
    for text, length in enumerate(lengths):
        own = torch.cat([torch.arange(prefix), prefix + start + torch.arange(length)])
        queries = length if asked is None else 1
        first = start if asked is None else text
        keys, values = (states[0][:, own].repeat_interleave(group, 0) for states in (key, value))
        at, seen = torch.arange(queries)[:, None] + len(own) - queries, torch.arange(len(own))[None]
        visible = (reach[0] < 0) | (seen >= at - reach[0])
        visible = visible & ((reach[1] < 0) | (seen <= at + reach[1]))
        scores = query[0][:, first : first + queries] @ keys.transpose(1, 2) * scaling
        found.append((scores.masked_fill(~visible, -torch.inf).softmax(-1) @ values).transpose(0, 1))
        start += length
    return torch.cat(found)[None]


def states_of(heads: int, tokens: int, width: int, *, by_token: bool, scale: float = 1.0) -> torch.Tensor:
    """Made-up states (1, heads, tokens, width), in one of the two orders in which layers hand them over."""
    if by_token:
        return (torch.randn(1, tokens, heads, width) * scale).bfloat16().transpose(1, 2)
    return (torch.randn(1, heads, tokens, width) * scale).bfloat16()


CASES = [
    ([1, 2, 3, 17, 33, 64, 100], 0, (9, 3, 64), (-1, 0)),
    ([130, 158, 512, 513, 1100], 0, (9, 3, 64), (-1, 0)),
    ([30, 700, 1300], 0, (4, 4, 80), (-1, -1)),
    ([30, 700, 1300], 5, (8, 1, 128), (100, 0)),
    ([3, 600, 1200], 7, (8, 2, 256), (60, 60)),
    ([1, 1, 1], 40, (6, 2, 32), (-1, 0)),
    ([5, 60], 600, (6, 2, 16), (511, 0)),
    ([5, 60], 3, (160, 1, 20), (16, 0)),
    ([9, 64, 63, 65], 3, (15, 5, 96), (0, 0)),
]


@pytest.mark.usefixtures("build")
@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize(("lengths", "prefix", "shape", "reach"), CASES)
def test_it_is_the_softmax_over_what_is_seen(lengths, prefix, shape, reach, by_token):
    torch.manual_seed(0)
    heads, shared, width = shape
    query = states_of(heads, sum(lengths), width, by_token=by_token, scale=3.0)
    key, value = (states_of(shared, prefix + sum(lengths), width, by_token=by_token) for _ in range(2))
    spans = Spans.of(lengths, prefix, CPU, torch.bfloat16)
    found = attend(query, key, value, spans, reach, None)
    right = defined(query, key, value, lengths, prefix, reach, width**-0.5)
    assert found.shape == (1, sum(lengths), heads, width)
    # one rounding of weights and one of the sum, of values that are of size 1 to 4
    assert (found.double() - right).abs().max() < 0.03
    last = [sum(lengths[: number + 1]) - 1 for number in range(len(lengths))]
    pruned = attend(query[:, :, last], key, value, spans.last(), reach, None)
    alone = defined(query[:, :, last], key, value, lengths, prefix, reach, width**-0.5, asked=1)
    assert (pruned.double() - alone).abs().max() < 0.03


@pytest.mark.usefixtures("build")
def test_lengths_of_all_kinds_and_scores_of_all_sizes():
    """Drawn at random; large scores overflow unless weights are relative to the largest."""
    draw = np.random.default_rng(0)
    for seed in range(40):
        torch.manual_seed(seed)
        lengths = draw.integers(1, [40, 700][seed % 2], size=int(draw.integers(1, 6))).tolist()
        prefix, shared, group = int(draw.integers(0, 70)), int(draw.integers(1, 4)), int(draw.integers(1, 5))
        width, reach = int(draw.integers(1, 70)) * 2, [(-1, 0), (-1, -1), (17, 0), (30, 9)][seed % 4]
        scale = float(draw.choice([0.01, 1.0, 30.0]))
        query = states_of(shared * group, sum(lengths), width, by_token=True, scale=scale)
        key, value = (states_of(shared, prefix + sum(lengths), width, by_token=False) for _ in range(2))
        found = attend(query, key, value, Spans.of(lengths, prefix, CPU, torch.bfloat16), reach, 0.1)
        right = defined(query, key, value, lengths, prefix, reach, 0.1)
        assert (found.double() - right).abs().max() < 0.03, (seed, lengths, prefix, width, reach, scale)


@pytest.mark.usefixtures("build")
@pytest.mark.parametrize("lengths", [[40, 3, 700], [1500]])
def test_threads_give_the_same_bits(lengths, set_threads):
    query, key, value = (states_of(heads, sum(lengths), 64, by_token=True) for heads in (9, 3, 3))
    found = []
    for threads in (1, 2, 5):
        set_threads(threads)
        found.append(attend(query, key, value, Spans.of(lengths, 0, CPU, torch.bfloat16), (-1, 0), None))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.usefixtures("build")
def test_what_is_not_a_number_stays_so_in_its_own_text():
    query, key, value = (states_of(heads, 60, 32, by_token=True) for heads in (4, 2, 2))
    key[0, 0, 40] = torch.nan
    found = attend(query, key, value, Spans.of([30, 30], 0, CPU, torch.bfloat16), (-1, 0), None)
    broken = found.isnan().any(-1)[0]
    assert broken[40:, :2].all()
    assert not broken[:40].any()
    assert not broken[:, 2:].any()


@needs_it
def test_other_numbers_than_bfloat16_are_refused():
    query, key, value = (states_of(heads, 6, 32, by_token=True).float() for heads in (4, 2, 2))
    with pytest.raises(ModelError, match=r"take bfloat16 and even heads of one width, not torch\.float32"):
        attend(query, key, value, Spans.of([6], 0, CPU, torch.bfloat16), (-1, 0), None)


@needs_it
@pytest.mark.parametrize(
    ("shape", "template", "pooling", "bidirectional", "options"), [*CELLS, ("llama", "classical", "last", False, {})]
)
def test_the_encoders_vectors_are_as_near_to_float32_as_the_other_calls(
    tmp_path, shape, template, pooling, bidirectional, options
):
    base = make_base(tmp_path / "base", shape, **options)
    made = {"pooling": pooling, "bidirectional": bidirectional, "max_tokens": 48}
    model = antiphon.build(base, template, **made, dtype="bfloat16")
    truth = antiphon.build(base, template, **made, dtype="float32")
    tiled, plain = (Encoder(model, attention=call, budget=400, widen=False) for call in ("varlen", "sdpa"))
    assert tiled.reason is None
    assert tiled.mode == "varlen"
    for prompt in (None, "find what answers it"):
        right = truth.encode(TEXTS, prompt=prompt, show_progress_bar=False)
        off = [np.linalg.norm(encoder.encode(TEXTS, prompt=prompt) - right, axis=1) for encoder in (tiled, plain)]
        assert np.sqrt((off[0] ** 2).mean()) < 1.5 * np.sqrt((off[1] ** 2).mean())


@pytest.fixture
def unbuilt(monkeypatch, tmp_path):
    """As if nothing had been built or asked yet, on a processor that has it all."""
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "has", lambda feature: True)
    monkeypatch.setattr(library, "_tiles_permitted", lambda: True)
    for kept in KEPT:
        kept.cache_clear()
    yield tmp_path
    for kept in KEPT:
        kept.cache_clear()


def test_without_a_compiler_the_other_calls_are_taken(unbuilt, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(unbuilt))
    assert "there is no C compiler: $CC is not set" in tiles.SOURCE.missing()
    assert candidates(CPU, torch.bfloat16) == ("matmul", "sdpa")


def test_a_compiler_that_fails_is_quoted_once(unbuilt, monkeypatch, caplog):
    failing = unbuilt / "cc"
    failing.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 1\n", encoding="utf-8")
    failing.chmod(0o755)
    monkeypatch.setenv("CC", str(failing))
    with caplog.at_level(logging.INFO, logger="antiphon"):
        for _ in range(2):
            assert tiles.SOURCE.missing() == "its C code cannot be built or loaded: no such option"
    assert caplog.text.count("is not there, because its C code cannot be built or loaded: no such option.") == 1


def test_a_processor_without_it_is_named(unbuilt, monkeypatch):
    monkeypatch.setattr(library, "has", lambda feature: feature != "avx512_bf16")
    assert tiles.SOURCE.missing() == "the processor has no avx512_bf16"


def test_it_is_built_for_tiles_where_processor_and_system_give_them(unbuilt, monkeypatch):
    assert tiles.SOURCE.taken == TILES
    monkeypatch.setattr(library, "_tiles_permitted", lambda: False)
    assert tiles.SOURCE.taken == VECTORS
    assert NativeSource("product", TILES).missing() == "the system lets no process use its tiles"
    monkeypatch.setattr(library, "_tiles_permitted", lambda: True)
    monkeypatch.setattr(library, "has", lambda feature: feature != "amx_bf16")
    assert tiles.SOURCE.taken == VECTORS


@needs_it
def test_it_is_built_once_and_kept(unbuilt, monkeypatch):
    assert tiles.SOURCE.missing() is None
    [kept] = (unbuilt / "cache" / "native").iterdir()
    before = kept.stat().st_mtime_ns
    for cached in KEPT:
        cached.cache_clear()
    monkeypatch.setattr(library.subprocess, "run", None)
    assert tiles.SOURCE.missing() is None
    assert kept.stat().st_mtime_ns == before


@needs_it
def test_a_kept_file_that_cannot_be_loaded_is_built_again(unbuilt):
    assert tiles.SOURCE.missing() is None
    [kept] = (unbuilt / "cache" / "native").iterdir()
    kept.unlink()  # or the file that this process has mapped would change under it
    kept.write_bytes(b"no library")
    for cached in KEPT:
        cached.cache_clear()
    assert tiles.SOURCE.missing() is None
    assert kept.read_bytes().startswith(b"\x7fELF")


@needs_it
def test_a_cache_that_cannot_be_written_is_no_fault(unbuilt):
    (unbuilt / "cache").write_text("a file where the folder would be", encoding="utf-8")
    assert tiles.SOURCE.missing() is None
