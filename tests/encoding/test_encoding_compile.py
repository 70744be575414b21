"""Compiled layers: the same vectors, and one sentence where there is no compiler."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from conftest import vectors
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.encoding import Encoder
from antiphon.model.parity import compare, unlike_texts

TEXTS = unlike_texts()


@pytest.fixture
def model(tiny_base) -> SentenceTransformer:
    return antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="float32")


@pytest.fixture
def no_compiler(tmp_path):
    """Let torch find no compiler; monkeypatch would leave its settings without this one."""
    from torch._inductor import config

    before = config.cpp.cxx
    config.cpp.cxx = (str(tmp_path / "no-such-compiler"),)
    yield
    config.cpp.cxx = before


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_compiled_layers_give_the_same_vectors(model):
    """In float32, where the limit is strict, with the attention that 16 bits take."""
    compiled = Encoder(model, budget=512, attention="matmul", compile=True)
    assert compiled.reason is None
    assert compiled.compile_seconds > 0
    for prompt in (None, "find what answers the question in full"):
        truth = vectors(model, TEXTS, prompt=prompt)
        same = compare(truth, compiled.encode(TEXTS, prompt=prompt))
        assert same.equal, same
        assert not compare(truth, np.roll(truth, 1, axis=0)).equal


@pytest.mark.slow
def test_without_a_compiler_the_layers_run_as_they_are(model, tmp_path, monkeypatch, no_compiler, caplog):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        encoder = Encoder(model, compile=True)
    assert encoder.reason is None
    assert encoder.compile_seconds is None
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("antiphon")]
    assert said.startswith("The layers are not compiled, because ")
    assert "\n" not in said
    assert compare(vectors(model, TEXTS), encoder.encode(TEXTS)).equal
