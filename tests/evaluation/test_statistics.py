"""The bootstrap: equal to plain loops, at its nominal rate on simulated data, and paired where it says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from antiphon.errors import DataError
from antiphon.evaluation.statistics import (
    Interval,
    Sample,
    average_precision,
    bootstrap,
    draws,
    over_tasks,
    paired,
    percentiles,
    spearman,
)

NUMBERS = st.lists(st.integers(-4, 4), min_size=3, max_size=40)  # many ties


def ids(count):
    return tuple(map(str, range(count)))


def sample(statistic, first, second=None):
    return Sample(statistic, ids(len(first)), np.asarray(first, float), None if second is None else np.asarray(second))


@given(NUMBERS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_spearman_is_scipys(values, random):
    a = np.array(values, dtype=float)
    b = np.array(random.sample(values, len(values)), dtype=float)
    if len(set(values)) == 1:
        assert math.isnan(spearman(a[None], b[None])[0])
    else:
        assert spearman(a[None], b[None])[0] == pytest.approx(spearmanr(a, b)[0])


@given(NUMBERS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_average_precision_is_scikit_learns_ties_and_all(values, random):
    scores = np.array(values, dtype=float)
    labels = np.array([random.randint(0, 1) for _ in values], dtype=float)
    if labels.sum() == 0:
        assert math.isnan(average_precision(scores, labels))
    else:
        assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))


def test_resampling_is_a_plain_loop_over_the_draws():
    generator = np.random.default_rng(1)
    a, b = generator.random(30), generator.random(30)
    by_hand = [spearmanr(a[picks], b[picks])[0] for picks in draws(30, 50)]
    assert sample("spearman", a, b).resampled(50) == pytest.approx(by_hand)
    assert sample("mean", a).resampled(50) == pytest.approx([a[picks].mean() for picks in draws(30, 50)])


@pytest.mark.parametrize("statistic", ["mean", "spearman"])
def test_intervals_cover_the_truth_at_their_nominal_rate(statistic):
    """400 simulated data sets: 95 % intervals hold the truth in 95 % of them, within what 400 can tell."""
    generator, truth, held = np.random.default_rng(5), {"mean": 0.3, "spearman": 6 / math.pi * math.asin(0.25)}, 0
    for trial in range(400):
        if statistic == "mean":
            drawn = sample("mean", generator.binomial(1, 0.3, 150).astype(float))
        else:
            pairs = generator.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 80)
            drawn = sample("spearman", pairs[:, 0], pairs[:, 1])
        interval = percentiles(drawn.score(), drawn.resampled(300, seed=trial))
        held += interval.low <= truth[statistic] <= interval.high
    assert 0.915 <= held / 400 <= 0.98


def test_a_paired_interval_covers_the_difference_and_is_narrower_than_an_unpaired_one():
    generator, held, narrower = np.random.default_rng(7), 0, 0
    for trial in range(300):
        easy = generator.normal(0, 1, 120)  # examples that are easy for one are easy for the other
        a = sample("mean", easy + generator.normal(0, 0.3, 120))
        b = sample("mean", easy + 0.05 + generator.normal(0, 0.3, 120))
        both = paired(a, b, seed=trial)
        held += both.low <= 0.05 <= both.high
        apart = percentiles(0.0, b.resampled(300, seed=trial) - a.resampled(300, seed=trial + 10_000))
        narrower += both.high - both.low < apart.high - apart.low
    assert 0.91 <= held / 300 <= 0.985
    assert narrower == 300


def test_other_examples_cannot_be_paired():
    a = sample("mean", [0.1, 0.2, 0.3])
    b = Sample("mean", ("0", "1", "x"), a.first)
    with pytest.raises(DataError, match="not scored on the same examples"):
        paired(a, b)
    with pytest.raises(DataError, match="not scored on the same examples"):
        paired(a, sample("spearman", [0.1, 0.2, 0.3], [1.0, 2.0, 3.0]))


def test_over_tasks_every_task_counts_once():
    generator = np.random.default_rng(2)
    small, large = sample("mean", generator.random(10)), sample("mean", generator.random(1000))
    both = over_tasks([(one.score(), one.resampled()) for one in (small, large)])
    assert both.mean == pytest.approx((small.score() + large.score()) / 2)
    # half of each task's uncertainty, added in quadrature
    expected = math.hypot(small.resampled().std(), large.resampled().std()) / 2
    assert (both.high - both.low) / 3.92 == pytest.approx(expected, rel=0.1)


def test_intervals_are_seeded_and_say_themselves():
    values = np.random.default_rng(3).random(50)
    assert bootstrap(values) == bootstrap(values) == sample("mean", values).interval()
    assert str(Interval(0.5, 0.4, 0.6)) == "0.5000 [0.4000, 0.6000]"
    assert Interval(0.5, 0.4, 0.6).excludes_zero
    assert not Interval(0.5, -0.4, 0.6).excludes_zero
    assert math.isnan(percentiles(0.5, np.full(3, np.nan)).low)
