"""The check of faster ways to run a model: right roundings pass it in 16 bits, and each fault fails it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.encoding import Encoder, truth
from antiphon.encoding.check import CHECKED, ROUNDED, Check, Distance, Judge
from antiphon.encoding.widened import widened
from antiphon.model.fingerprint import cache_key, fingerprint

SMOLLM2 = Path(__file__).resolve().parents[2] / ".cache" / "real" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
BASES = [
    pytest.param("nano", id="nano"),
    pytest.param(str(SMOLLM2), id="smollm2", marks=[pytest.mark.real, pytest.mark.slow]),
]
POOLINGS = ("mean", "last")


def plain(model: SentenceTransformer, texts: object) -> np.ndarray:
    raw = model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)
    return np.asarray(raw, dtype=np.float32)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=BASES)
def base(request) -> str:
    if request.param == str(SMOLLM2) and not SMOLLM2.exists():
        pytest.skip("smollm2 is not there; `make real` brings it")
    return request.param


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_fault_fails_in_16_bits_and_another_rounding_passes(base, pooling):
    model = antiphon.build(base, "echo", pooling=pooling, dtype="bfloat16", device="cpu")
    judge = Judge(model, plain)

    def without_eos(texts: object) -> np.ndarray:
        faulty = copy.deepcopy(model)
        faulty[0].template = {**model[0].template, "eos": False}
        return plain(faulty, texts)

    def pooled_otherwise(texts: object) -> np.ndarray:
        other = copy.deepcopy(model)
        other[1].pooling_mode = "last" if pooling == "mean" else "mean"
        return plain(other, texts)

    def swapped(texts: object) -> np.ndarray:
        vectors = plain(model, texts)
        vectors[[1, 2]] = vectors[[2, 1]]
        return vectors

    def alone(texts: object) -> np.ndarray:
        return np.concatenate([plain(model, [text]) for text in texts])

    for way in (alone, lambda texts: plain(widened(model), texts)):
        right = judge.check(way)
        assert right.reason is None, right
    for fault in (without_eos, pooled_otherwise, swapped):
        wrong = judge.check(fault)
        assert wrong.reason is not None, (fault.__name__, wrong)
        assert wrong.distance.largest > 2 * wrong.theirs.largest
        assert f"{wrong.distance.largest:.1e}" in wrong.reason
        assert f"{wrong.theirs.largest:.1e}" in wrong.reason
    assert judge.check(swapped, limits=ROUNDED).reason is not None


@pytest.mark.parametrize("shape", ["llama", "gemma3", "qwen3", "mistral"])
def test_the_widened_view_is_the_model_in_float32(bases, shape):
    model = antiphon.build(bases[shape], "echo", pooling="mean", max_tokens=64, dtype="bfloat16")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wide = antiphon.build(bases[shape], "echo", pooling="mean", max_tokens=64, dtype="float32")
    for name, parameter in wide[0].named_parameters():
        parameter.data.copy_(model[0].get_parameter(name).float())
    for name, buffer in wide[0].named_buffers():  # such as Gemma's scale of embeddings
        buffer.copy_(model[0].get_buffer(name).float())
    ours, theirs = plain(widened(model), CHECKED), plain(wide, CHECKED)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert np.abs(ours - plain(model, CHECKED)).max() > 1e-5
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert widened(wide) is wide


@pytest.mark.parametrize("adapted", [torch.bfloat16, torch.float32])
def test_the_widened_view_narrows_nothing_for_an_adapter(bases, adapted):
    model = antiphon.build(bases["llama"], "echo", pooling="mean", max_tokens=64, dtype="bfloat16")
    torch.manual_seed(0)
    model[0].model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    adapters = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
    assert adapters
    for parameter in adapters:
        parameter.data = parameter.data.to(adapted)
    ours = plain(widened(model), CHECKED)
    theirs = plain(model.float(), CHECKED)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_the_truth_is_kept_by_what_it_depends_on(tiny_base, tmp_path, caplog):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="bfloat16")
    asked = []

    def counted(model: SentenceTransformer, texts: object) -> np.ndarray:
        asked.append(model)
        return plain(model, texts)

    first = truth.of(model, counted, CHECKED)
    assert len(asked) == 2
    again = truth.of(model, counted, CHECKED)
    assert len(asked) == 2
    assert np.array_equal(first.float32, again.float32)
    assert np.array_equal(first.theirs, again.theirs)
    (file,) = (tmp_path / "cache" / "truth").iterdir()
    file.write_bytes(b"broken")
    truth.of(model, counted, CHECKED)
    assert len(asked) == 4
    with torch.no_grad():
        model[0].model.layers[0].mlp.up_proj.weight.mul_(-1)
    truth.of(model, counted, CHECKED)
    assert len(asked) == 6
    assert len(list((tmp_path / "cache" / "truth").iterdir())) == 2


HALVES = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}


@pytest.mark.parametrize("change", [{"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}, HALVES])
def test_the_same_weights_read_otherwise_are_another_model(change, tiny_base, tmp_path):
    """What was kept for the one must not be what the other is judged by, or what an evaluation scores it by."""
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | change))
    first, second = (antiphon.build(base, max_tokens=64, dtype="bfloat16") for base in (tiny_base, other))
    assert fingerprint(first) == fingerprint(second)
    assert cache_key(first) != cache_key(second)
    assert cache_key(first) == cache_key(antiphon.build(tiny_base, max_tokens=64, dtype="bfloat16"))
    antiphon.save(first, tmp_path / "saved")
    assert cache_key(first) == cache_key(antiphon.load(tmp_path / "saved", dtype="bfloat16"))
    assert [Encoder(model).reason for model in (first, second)] == [None, None]


def test_a_cache_that_cannot_be_written_to_stops_nobody(tiny_base, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "file"))
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="bfloat16")
    encoder = Encoder(model)
    assert encoder.reason is None
    assert encoder.check.theirs.largest > 0


def test_distance_is_of_unit_vectors_and_infinite_where_one_is_broken():
    truth_ND = np.eye(3, dtype=np.float32)  # every two are sqrt(2) apart
    ours_ND = truth_ND.copy() * 7
    assert Distance.between(ours_ND, truth_ND) == Distance(0.0, 0.0)
    ours_ND[0] = [0, 1, 0]
    found = Distance.between(ours_ND, truth_ND)
    assert np.isclose(found.largest, 1.0)
    assert np.isclose(found.typical, 3**-0.5)
    ours_ND[0] = np.nan
    assert Distance.between(ours_ND, truth_ND).largest == np.inf
    assert Check(None).error is None
