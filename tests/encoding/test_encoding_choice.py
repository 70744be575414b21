"""Compiling only where it pays: by the tokens to come, and by what it took and gained before."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from conftest import vectors
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.encoding import Encoder, choice
from antiphon.encoding.choice import Choice, CompileGain
from antiphon.encoding.runner import Runner
from antiphon.model.parity import compare, unlike_texts

TEXTS = unlike_texts()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tiny_base) -> SentenceTransformer:
    return antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="float32")


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """Layers that are said to be compiled and are not: what is tested is when."""
    done: list[str] = []

    def run(layer):
        done.append("a layer")
        return layer

    monkeypatch.setattr("antiphon.encoding.decoder.compiled", run)
    return done


def seconds(monkeypatch, plain: float, fast: float) -> None:
    """What a token is measured to take as layers are, and compiled."""
    monkeypatch.setattr(
        "antiphon.encoding.choice.seconds_per_token", lambda decoder: fast if decoder.execution.compiled else plain
    )


def test_gain_is_what_is_won_back():
    gain = CompileGain(cost=10.0, plain=3e-3, compiled=2e-3)
    assert not gain.pays(9_999)
    assert gain.pays(10_001)
    assert not CompileGain(cost=10.0, plain=2e-3, compiled=3e-3).pays(10**9)


def test_a_short_job_measures_and_compiles_nothing(model, compiled, monkeypatch):
    monkeypatch.setattr("antiphon.encoding.choice.seconds_per_token", None)
    encoder = Encoder(model, compile="auto")
    assert compare(vectors(model, TEXTS), encoder.encode(TEXTS)).equal
    assert encoder.expect(10, TEXTS) is False
    assert not compiled
    assert encoder.compile_seconds is None


def test_tokens_that_add_up_compile_once(model, compiled, monkeypatch):
    seconds(monkeypatch, 1.0, 0.5)
    encoder = Encoder(model, compile="auto")
    before = encoder.encode(TEXTS)
    assert encoder.compile_seconds is None
    once = int(model.preprocess(list(dict.fromkeys(TEXTS)))["attention_mask"].sum())
    monkeypatch.setattr(choice, "LEAST_TOKENS", once + 1)
    after = encoder.encode(TEXTS)
    assert encoder.compile_seconds is not None
    assert "compiled" in encoder.mode
    assert compare(before, after).equal
    number = len(compiled)
    encoder.encode(TEXTS)
    assert len(compiled) == number


def test_what_is_expected_decides_once_for_all(model, compiled, monkeypatch):
    seconds(monkeypatch, 1.0, 0.5)
    many, few = Encoder(model, compile="auto"), Encoder(model, compile="auto")
    assert many.expect(10**6, TEXTS[:3], task="document")
    assert not few.expect(3, TEXTS[:3])
    monkeypatch.setattr(choice, "LEAST_TOKENS", 1)
    few.encode(TEXTS)
    assert few.compile_seconds is None
    assert Encoder(model, compile=False).expect(10**9, TEXTS) is False


def test_what_was_measured_is_kept_and_a_loss_is_not_tried_again(model, compiled, monkeypatch):
    seconds(monkeypatch, 1.0, 1.5)
    encoder = Encoder(model, compile="auto")
    assert encoder.expect(10**6, TEXTS) is False  # it was tried, and left
    assert compiled
    assert encoder.mode == "varlen"
    known = Choice(Runner(model, budget=None).decoder, "varlen, compiled").known()
    assert known.plain == 1.0
    assert known.compiled == 1.5
    number = len(compiled)
    assert Encoder(model, compile="auto").expect(10**9, TEXTS) is False
    assert len(compiled) == number


def test_a_broken_record_is_made_again(model, caplog):
    kept = Choice(Runner(model, budget=None).decoder, "sdpa, compiled")
    kept.kept.path.parent.mkdir(parents=True)
    kept.kept.path.write_text("{", encoding="utf-8")
    with caplog.at_level(logging.INFO, logger="antiphon"):
        assert kept.known() is None
    assert "measured again" in caplog.text


def test_a_compiler_that_is_missing_is_no_fault_of_auto(model, monkeypatch, caplog):
    seconds(monkeypatch, 1.0, 0.5)

    def fails(layer):
        raise RuntimeError("no compiler")

    monkeypatch.setattr("antiphon.encoding.decoder.compiled", fails)
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        encoder = Encoder(model, compile="auto")
        assert encoder.expect(10**6, TEXTS) is False
    assert encoder.fault is None
    assert not caplog.records
    assert np.array_equal(encoder.encode(TEXTS), Encoder(model).encode(TEXTS))
