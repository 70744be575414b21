"""The demo's arithmetic against hand-made cases, and the whole of it on a few pairs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_base

import antiphon
from antiphon import demo, nano
from antiphon.cli import report
from antiphon.data.docstrings import DocstringPair
from antiphon.errors import ConfigError


def test_ndcg_of_one_relevant_document_is_by_its_rank():
    similarity = np.zeros((12, 12))
    similarity[0, 0] = 1.0  # first
    similarity[1] = np.arange(12)  # document 1 is the last but one
    similarity[2, [2, 5, 7]] = [0.5, 0.9, 0.8]  # third
    scores = demo.ndcg(similarity)
    assert scores[0] == 1.0
    assert scores[1] == 0.0
    assert scores[2] == pytest.approx(1 / math.log2(4))
    # all as near: half of the eleven others count as nearer
    assert scores[3] == pytest.approx(1 / math.log2(1 + 6.5))


def test_a_model_that_gives_every_text_one_vector_earns_no_first_place():
    assert demo.ndcg(np.ones((100, 100))).max() == 0.0


def test_the_bootstrap_is_seeded_and_covers_the_mean():
    values = np.random.default_rng(3).random(500)
    interval = demo.bootstrap(values)
    assert interval == demo.bootstrap(values)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(values.mean())
    # the normal approximation of the same interval
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(500), rel=0.1)
    assert str(demo.Interval(0.5, 0.4, 0.6)) == "0.5000 [0.4000, 0.6000]"


def test_pairs_are_taken_evenly_and_always_the_same():
    items = [DocstringPair(str(n), "", "") for n in range(10)]
    assert [item.name for item in demo.evenly(items, 4)] == ["0", "2", "5", "7"]
    assert demo.evenly(items, 20) == items


def zero_shot_rows():
    return [
        name
        for template, pooling in demo.ZERO_SHOT
        for name in (f"{template}, {pooling}", f"{template}, {pooling}, calibrated")
        if "calibrated" not in name or (template, pooling) in demo.CALIBRATED
    ]


def test_too_few_pairs_are_refused(tiny_base):
    with pytest.raises(ConfigError, match="asked for 1 pairs"):
        demo.run(tiny_base, limit=1)


def test_the_whole_demo_gives_a_row_for_every_way_and_a_search(tmp_path, capsys):
    base = make_base(tmp_path / "base", tie_word_embeddings=True)
    steps = []
    # a tiny model, tiny stages; the pairs it trains on are those of the environment
    overrides = {"steps": 1, "batch_size": 4, "data.limit": 40, "model.max_tokens": 48}
    outcome = demo.run(
        base,
        limit=12,
        query="a query",
        max_tokens=200,
        runs=tmp_path / "runs",
        overrides=overrides,
        on_step=steps.append,
    )
    assert [row.name for row in outcome.rows] == [*zero_shot_rows(), *demo.TRAINED]
    assert all(0 <= row.ndcg.low <= row.ndcg.mean <= row.ndcg.high <= 1 for row in outcome.rows)
    means = {row.name: row.ndcg.mean for row in outcome.rows}
    assert len(outcome.gains) == len(demo.GAINS)
    for gain, (name, more, less) in zip(outcome.gains, demo.GAINS, strict=True):
        assert gain.name == name
        assert gain.ndcg.mean == pytest.approx(means[more] - means[less])
    assert len(outcome.hits) == 5
    assert outcome.best.ndcg.mean == max(means.values())
    assert all(antiphon.load(tmp_path / "runs" / name, device="cpu") for name in demo.TRAINED)
    assert len(outcome.memory.decoded) == 3
    report.demo(outcome, "nano")
    out = capsys.readouterr().out
    assert "12 docstrings of the standard library" in out
    assert "95 % interval" in out
    assert "anchor minus baseline" in out
    assert "in nats a token" in out
    assert outcome.hits[0].id in out


@pytest.fixture(scope="module")
def zero_shot(tiny_base):
    return demo.run(tiny_base, limit=4, max_tokens=200)


def test_nothing_is_trained_zero_shot(zero_shot, capsys):
    assert [row.name for row in zero_shot.rows] == zero_shot_rows()
    assert list(zero_shot.searches) == list(demo.SEARCHED)
    assert zero_shot.memory is None
    report.demo(zero_shot, "nano")
    out = capsys.readouterr().out
    template, pooling, *calibrated = zero_shot.best.name.split(", ")
    assert f"--template {template} --pooling {pooling}" in out
    assert ("antiphon calibrate nano" in out) == bool(calibrated)
    for name, found in zero_shot.searches.items():
        assert f"{name}: {found[0].id}, " in out


def test_a_calibrated_best_row_is_calibrated_before_it_is_searched(zero_shot, capsys):
    best = demo.DemoResult("echo-rewrite, mean, calibrated", demo.Interval(2.0, 2.0, 2.0))
    report.demo(replace(zero_shot, rows=(*zero_shot.rows, best)), "nano")
    out = capsys.readouterr().out
    assert "antiphon calibrate nano --template echo-rewrite --pooling mean --out calibrated" in out
    assert "--model calibrated\n" in out


def test_the_recipes_of_the_demo_are_there():
    for name in demo.TRAINED:
        assert nano.recipe_file(name).exists()
    with pytest.raises(ConfigError, match="no recipe 'best'"):
        nano.recipe_file("best")
