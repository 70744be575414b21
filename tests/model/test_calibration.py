"""Affine maps behind the pooling: right on paper, unchanged by saving and other readers, and refused in sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_base, vectors
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sklearn.covariance import OAS

import antiphon
from antiphon.encoding.calibrate import shipped_texts
from antiphon.errors import CheckpointError, ConfigError, DataError
from antiphon.model.affine_maps import METHODS, Moments, fit, parsed
from antiphon.model.calibration import calibration_of, head_of
from antiphon.model.parity import between, compare, unlike_texts

TEXTS = [f"{text} {word}" for text in unlike_texts() for word in ("once", "again")]


def moments_of(rows):
    moments = Moments(rows.shape[1])
    for start in range(0, len(rows), 7):  # batches of uneven size
        moments.add(rows[start : start + 7])
    return moments


def applied(by, rows):
    return rows @ by.weight.T + by.bias


def no_head():
    raise AssertionError("this method has no use for the head")


@pytest.fixture
def rows():
    random = np.random.default_rng(3)
    return random.normal(size=(200, 12)) @ random.normal(size=(12, 12)) + 1e4 * random.normal(size=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return antiphon.build(make_base(tmp_path_factory.mktemp("base")), max_tokens=128, dtype="float32")


def test_moments_of_a_stream_are_those_of_the_whole(rows):
    moments = moments_of(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True), rtol=1e-6)


def test_a_long_stream_takes_no_more_memory_than_a_short_one():
    moments = Moments(8)
    for number in range(1000):
        moments.add(np.full((100, 8), number % 3))
    held = sum(value.nbytes for value in vars(moments).values() if isinstance(value, np.ndarray))
    assert moments.count == 100_000
    assert held == 8 * (8 + 64)


def test_centred_and_standardised_vectors(rows):
    centred = applied(fit("center", moments_of(rows), no_head), rows)
    np.testing.assert_allclose(centred, rows - rows.mean(0), atol=1e-7)
    standard = applied(fit("standardize", moments_of(rows), no_head), rows)
    np.testing.assert_allclose(standard, (rows - rows.mean(0)) / rows.std(0), atol=1e-6)


def test_the_first_components_are_gone(rows):
    left = applied(fit("all-but-the-top:2", moments_of(rows), no_head), rows)
    _, _, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(left @ axes[:2].T, 0, atol=1e-6)
    np.testing.assert_allclose(left @ axes[2:].T, (rows - rows.mean(0)) @ axes[2:].T, atol=1e-6)


def test_whitened_with_hardly_any_shrinkage_the_covariance_is_the_identity(rows):
    white = applied(fit("whiten:1e-9", moments_of(rows), no_head), rows)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(12), atol=1e-5)


def test_shrunk_wholly_whitening_is_centring_up_to_scale(rows):
    by = fit("whiten:1", moments_of(rows), no_head)
    np.testing.assert_allclose(by.weight, by.weight[0, 0] * np.eye(12), atol=1e-9)


def test_the_estimated_shrinkage_is_about_that_of_scikit_learn(rows):
    # whose formula leaves out the paper's terms in 2 / D
    wanted = OAS().fit(rows[:20]).shrinkage_
    estimated, told = (fit(method, moments_of(rows[:20]), no_head) for method in ("whiten", f"whiten:{wanted}"))
    assert 0.2 < wanted < 0.6
    np.testing.assert_allclose(estimated.weight, told.weight, atol=0.03 * np.abs(told.weight).max())


def test_the_middle_directions_of_a_head_are_kept(rows):
    head = np.random.default_rng(5).normal(size=(50, 12)) * np.arange(1, 13)
    _, _, axes = np.linalg.svd(head, full_matrices=False)
    left = applied(fit("embed_filter:0.5", moments_of(rows), lambda: head), rows)
    np.testing.assert_allclose(left @ axes[3:9].T, rows @ axes[3:9].T, atol=1e-6)
    np.testing.assert_allclose(left @ np.concatenate([axes[:3], axes[9:]]).T, 0, atol=1e-6)


def test_steps_are_fitted_on_what_those_before_leave(rows):
    step = applied(fit("all-but-the-top:3", moments_of(rows), no_head), rows)
    wanted = applied(fit("standardize", moments_of(step), no_head), step)
    both = applied(fit("all-but-the-top:3+standardize", moments_of(rows), no_head), rows)
    np.testing.assert_allclose(both, wanted, atol=1e-5)
    np.testing.assert_allclose(
        both, applied(fit(["all-but-the-top:3", "standardize"], moments_of(rows), no_head), rows)
    )


@pytest.mark.parametrize("method", [name for name in METHODS if name != "embed_filter"])
def test_duplicated_texts_change_nothing(rows, method):
    # but for the number of texts, which an estimated shrinkage asks for
    method = "whiten:0.1" if method == "whiten" else method
    once, twice = fit(method, moments_of(rows), no_head), fit(method, moments_of(np.tile(rows, (2, 1))), no_head)
    np.testing.assert_allclose(applied(once, rows), applied(twice, rows), atol=1e-5)


def test_a_constant_dimension_becomes_zero_and_no_division(rows):
    rows[:, 4] = 1234.5
    for method in ("standardize", "whiten", "center"):
        out = applied(fit(method, moments_of(rows), no_head), rows)
        assert np.isfinite(out).all()
        np.testing.assert_allclose(out[:, 4], 0, atol=1e-6)


@pytest.mark.parametrize("method", ["standardize", "whiten", "all-but-the-top:2", "center"])
def test_fewer_texts_than_dimensions(rows, method):
    assert np.isfinite(applied(fit(method, moments_of(rows[:5]), no_head), rows)).all()


@pytest.mark.parametrize("count", [1, 6])
def test_one_text_or_one_over_again_is_refused(rows, count):
    with pytest.raises(DataError, match="no spread"):
        fit("center", moments_of(np.repeat(rows[:1], count, axis=0)), no_head)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("centre", "There is no calibration 'centre'"),
        ("center:3", "takes no number"),
        ("whiten:much", "is none"),
        ("", "There is no calibration"),
        ([], "No calibration is named"),
    ],
)
def test_methods_that_there_are_not(method, said):
    with pytest.raises(ConfigError, match=said):
        parsed(method)


@pytest.mark.parametrize("method", ["all-but-the-top:12", "all-but-the-top:1.5", "whiten:2", "embed_filter:0"])
def test_numbers_that_cannot_be_used(rows, method):
    with pytest.raises(ConfigError, match="number"):
        fit(method, moments_of(rows), lambda: np.eye(12))


@pytest.mark.parametrize("method", ["standardize", "center+embed_filter:0.5", "whiten", "all-but-the-top:3"])
def test_a_model_says_what_the_map_makes_of_its_vectors(model, method):
    raw = vectors(model, TEXTS)
    done = antiphon.calibrate(model, TEXTS, method=method)
    by = fit(method, moments_of(raw.astype(np.float64)), lambda: head_of(model))
    assert compare(vectors(done, TEXTS), applied(by, raw).astype(np.float32)).equal
    assert compare(vectors(model, TEXTS), raw).error_against_spread == 0  # the given model stays as it is
    assert calibration_of(model) is None
    assert antiphon.Encoder(done).reason is None
    assert compare(antiphon.Encoder(done).encode(TEXTS), vectors(done, TEXTS)).equal


def test_fitted_twice_it_is_the_same_map(model):
    once = antiphon.calibrate(model, TEXTS)
    twice = antiphon.calibrate(once, iter(TEXTS))
    assert [type(module) for module in twice] == [type(module) for module in once]
    assert calibration_of(once) == calibration_of(twice)
    assert torch.equal(once[2].linear.weight, twice[2].linear.weight)
    assert torch.equal(once[2].linear.bias, twice[2].linear.bias)


def test_the_record_names_texts_and_method_and_survives_saving(model, tmp_path):
    done = antiphon.calibrate(model, TEXTS, method="center")
    antiphon.save(done, tmp_path / "saved")
    record = json.loads((tmp_path / "saved" / "antiphon.json").read_text())["calibration"]
    assert record["method"] == "center"
    assert record["rows"] == len(TEXTS)
    assert len(record["digest"]) == 64
    loaded = antiphon.load(tmp_path / "saved")
    assert between(done, loaded).equal
    assert calibration_of(loaded) == calibration_of(done)
    again = antiphon.calibrate(loaded, TEXTS, method="center")
    assert len(again) == len(loaded)


def test_a_record_that_is_none_is_refused(model, tmp_path):
    antiphon.save(antiphon.calibrate(model, TEXTS), tmp_path / "saved")
    file = tmp_path / "saved" / "antiphon.json"
    raw = json.loads(file.read_text())
    for broken in ({"module": 1}, {**raw["calibration"], "module": 0}, {**raw["calibration"], "module": 9}):
        file.write_text(json.dumps({**raw, "calibration": broken}))
        with pytest.raises(CheckpointError, match=r"antiphon\.json"):
            antiphon.load(tmp_path / "saved")


@pytest.mark.parametrize(("template", "pooling"), [("echo-rewrite", "mean"), ("eol", "last")])
def test_in_16_bits_it_is_saved_and_loaded_alike(tmp_path, template, pooling):
    base = make_base(tmp_path / "base")
    model = antiphon.build(base, template, pooling=pooling, max_tokens=128, dtype="bfloat16")
    done = antiphon.calibrate(model, TEXTS)
    antiphon.save(done, tmp_path / "saved")
    assert between(done, antiphon.load(tmp_path / "saved")).error_against_spread == 0
    assert antiphon.Encoder(done).reason is None


def test_plain_sentence_transformers_reads_a_stock_one(tmp_path):
    model = antiphon.build(make_base(tmp_path / "base"), "eol", pooling="last", max_tokens=128, dtype="float32")
    done = antiphon.calibrate(model, TEXTS)
    antiphon.save(done, tmp_path / "saved")
    assert between(done, SentenceTransformer(str(tmp_path / "saved"))).equal


def test_it_stands_before_a_closing_normalize(model):
    ended = SentenceTransformer(modules=[*model, Normalize()], prompts=model.prompts)
    done = antiphon.calibrate(ended, TEXTS)
    assert [type(module) for module in done][2:] == [Dense, Normalize]
    again = antiphon.calibrate(done, TEXTS)
    assert torch.equal(done[2].linear.bias, again[2].linear.bias)


def test_sides_that_read_differently_are_both_fitted(tmp_path):
    model = antiphon.build(make_base(tmp_path / "base"), "echo", max_tokens=128, dtype="float32")
    rows = np.concatenate([vectors(model, TEXTS, task=side) for side in ("query", "document")])
    by = fit("standardize", moments_of(rows.astype(np.float64)), no_head)
    done = antiphon.calibrate(model, TEXTS)
    np.testing.assert_allclose(done[2].linear.bias.numpy(), by.bias, rtol=1e-3, atol=1e-3)
    alone = antiphon.calibrate(model, TEXTS, side="document")
    assert not torch.allclose(alone[2].linear.bias, done[2].linear.bias, atol=1e-2)
    with pytest.raises(ConfigError, match="There is no side"):
        antiphon.calibrate(model, TEXTS, side="left")


def test_texts_that_are_none_are_refused(model):
    with pytest.raises(DataError):
        antiphon.calibrate(model, ["a text", 3])
    with pytest.raises(DataError, match="no spread"):
        antiphon.calibrate(model, [])


def test_without_texts_docstrings_stand_in():
    texts = shipped_texts()
    assert 300 <= len(texts) <= 1000
    assert len(set(texts)) == len(texts)
    assert all(100 <= len(text) <= 800 for text in texts)


def test_a_cut_and_calibrated_model_runs_packed(tmp_path):
    base = make_base(tmp_path / "base", num_hidden_layers=3)
    cut = antiphon.build(base, "classical-write", max_tokens=128, layers=2, dtype="float32")
    done = antiphon.calibrate(cut, TEXTS, method="whiten:0.5")
    encoder = antiphon.Encoder(done)
    assert encoder.reason is None
    assert compare(encoder.encode(TEXTS), vectors(done, TEXTS)).equal


def test_a_hundred_thousand_texts_are_read_as_a_stream(model, monkeypatch):
    # an oracle's share of the work: what a window embeds is made up, what is streamed and kept is the real thing
    alive, most = 0, 0

    class Text(str):
        def __new__(cls, *arguments):
            nonlocal alive, most
            alive, most = alive + 1, max(most, alive + 1)
            return super().__new__(cls, *arguments)

        def __del__(self):
            nonlocal alive
            alive -= 1

    class Drawn:
        def __init__(self, model):
            self.random, self.width = np.random.default_rng(0), model.get_embedding_dimension()

        def encode_query(self, texts):
            return self.random.normal(2.0, 3.0, size=(len(texts), self.width)).astype(np.float32)

    monkeypatch.setattr("antiphon.encoding.calibrate.Encoder", Drawn)
    done = antiphon.calibrate(model, (Text(f"text {number}") for number in range(100_000)))
    assert calibration_of(done).rows == 100_000
    assert most < 2_000
    np.testing.assert_allclose(done[2].linear.weight.diagonal().numpy(), 1 / 3.0, rtol=0.02)
