"""The rule of equality: what it accepts, what it must refuse, and the health of vectors."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers.processors import TemplateProcessing

import antiphon
from antiphon.errors import ParityError
from antiphon.model.parity import FEWEST, between, compare, encode, health, unlike_texts


@pytest.fixture
def model(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=128, dtype="float32")


def test_the_texts_of_the_check_are_unlike():
    texts = unlike_texts()
    assert len(set(texts)) == len(texts) >= FEWEST
    assert max(map(len, texts)) > 200 > 10 > min(map(len, texts))


def test_the_same_model_is_equal_and_figures_are_what_they_say(model):
    vectors = encode(model, unlike_texts())
    same = compare(vectors, vectors * 3.0)  # unit vectors are compared
    assert same.equal
    assert same.lowest_cosine == pytest.approx(1.0)
    moved = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    moved = moved.astype(np.float64)
    moved[5] += 1e-3 * moved[6]
    assert compare(vectors, moved).error_against_spread > 0
    assert "equal" in str(same)


def test_missing_eos_swapped_row_and_wrong_pooling_each_fail(model):
    texts = unlike_texts()
    want = encode(model, texts)

    swapped = want.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert not compare(want, swapped).equal

    model[1] = Pooling(model.get_embedding_dimension(), pooling_mode="mean")
    assert not compare(want, encode(model, texts)).equal

    model[1] = Pooling(model.get_embedding_dimension(), pooling_mode="lasttoken")
    assert compare(want, encode(model, texts)).equal
    model[0].tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert not compare(want, encode(model, texts)).equal


def test_two_models_and_their_folders(model, tiny_base, tmp_path):
    folder = antiphon.save(model, tmp_path / "a")
    assert between(model, folder).equal
    other = antiphon.build(tiny_base, "classical-write", pooling="last", max_tokens=128, dtype="float32")
    assert not between(folder, other).equal
    half = antiphon.load(folder, dtype="bfloat16")
    close = between(folder, half)
    assert close.limit == pytest.approx(5e-2)
    assert close.error_against_spread > 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda v: (v[:8], v[:8]), "at least 32"),
        (lambda v: (v, v[:, :4]), "shapes"),
        (lambda v: (v, np.where(np.arange(len(v))[:, None] == 2, np.nan, v)), "Vector 2 is not finite"),
        (lambda v: (v * 0 + 1, v), "no spread"),
    ],
)
def test_a_check_that_cannot_be_made_is_refused(spoil, sentence):
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    with pytest.raises(ParityError, match=sentence):
        compare(*spoil(vectors))


def test_health_tells_collapsed_vectors_from_healthy_ones():
    generator = np.random.default_rng(0)
    healthy = generator.normal(size=(40, 64)).astype(np.float32)
    assert not health(healthy).collapsed
    alike = health(np.ones((40, 64), np.float32) + 0.01 * healthy)
    assert alike.collapsed
    assert "collapsed" in str(alike)
