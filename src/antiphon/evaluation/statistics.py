"""Bootstrap intervals: of a mean, of the statistics that tasks are judged by, paired between two systems, over tasks.

A sample is what one resamples: N examples, each a row of one or two numbers. What is resampled together stays
together: two systems that answered the same examples are compared on the same draws. R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.errors import DataError

RESAMPLES = 1000
LEVEL = 0.95
_NUMBERS_AT_ONCE = 2**22
_SEED = 0
_CUTOFF = 10

Numbers = npt.NDArray[np.float64]
Picks = npt.NDArray[np.int64]
"""Indices of drawn examples."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def in_hundreds(self, sign: str = "") -> str:
        """Return its ends times 100, in words; with "+" both have a sign."""
        return f"{100 * self.low:{sign}.2f} to {100 * self.high:{sign}.2f}"

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside, for a difference."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Sample:
    """What a score was computed from, example by example; `statistic` is a key of STATISTICS.

    `first` and `second` have shape (N,): the values whose mean is the score, or predictions and their gold values.
    """

    statistic: str
    ids: tuple[str, ...]
    first: Numbers
    second: Numbers | None = None

    def __len__(self) -> int:
        return len(self.first)

    def score(self) -> float:
        """Return the statistic of the whole sample."""
        return float(self._statistics(np.arange(len(self))[None])[0])

    def resampled(self, resamples: int = RESAMPLES, *, seed: int = _SEED) -> Numbers:
        """Return the statistic of (R,) resamples; the same seed draws the same examples of samples of one size."""
        picks = draws(len(self), resamples, seed=seed)
        rows = max(1, _NUMBERS_AT_ONCE // max(len(self), 1))
        parts = [self._statistics(picks[start : start + rows]) for start in range(0, resamples, rows)]
        return np.concatenate(parts)

    def _statistics(self, picks_RN: Picks) -> Numbers:
        second = None if self.second is None else self.second[picks_RN]
        return STATISTICS[self.statistic](self.first[picks_RN], second)

    def interval(self, *, seed: int = _SEED) -> Interval:
        """Return the score with its percentile interval."""
        return percentiles(self.score(), self.resampled(seed=seed))


def draws(size: int, resamples: int = RESAMPLES, *, seed: int = _SEED) -> Picks:
    """Return (R, N) indices, drawn with replacement."""
    return np.random.default_rng(seed).integers(size, size=(resamples, size))


def bootstrap(values: Numbers) -> Interval:
    """Return the mean of (N,) values and its 95 % percentile interval over resampled examples, seeded."""
    return percentiles(float(values.mean()), values[draws(len(values))].mean(axis=1))


def percentiles(figure: float, resampled: Numbers) -> Interval:
    """Return the figure with the percentile interval of its resamples, those that are not a number left out."""
    tail = 100 * (1 - LEVEL) / 2
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Interval(figure, float("nan"), float("nan"))
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Interval(figure, float(low), float(high))


def paired(a: Sample, b: Sample, *, seed: int = _SEED) -> Interval:
    """Return the interval of b's score minus a's, both on the same draws.

    Raises DataError where the two were not scored on the same examples in the same order.
    """
    if a.statistic != b.statistic or a.ids != b.ids:
        raise DataError("The two runs were not scored on the same examples, so they cannot be compared pair by pair.")
    return percentiles(b.score() - a.score(), b.resampled(seed=seed) - a.resampled(seed=seed))


def over_tasks(figures_and_draws: Sequence[tuple[float, Numbers]]) -> Interval:
    """Return the mean over tasks of a figure and its interval, from each task's figure and (R,) resamples.

    The examples are resampled within each task and the tasks are not: it speaks of these tasks, not of others.
    """
    figures, resampled = zip(*figures_and_draws, strict=True)
    return percentiles(float(np.mean(figures)), np.mean(resampled, axis=0))


def ndcg(similarity_QQ: npt.NDArray[Any]) -> Numbers:
    """Return nDCG@10 of every query, (Q,) numbers, where document i is the one that answers query i.

    With one relevant document the ideal is 1, so it is 1 / log2(1 + rank), and 0 from rank 11 on. Of documents that
    are as near as the relevant one half count as nearer.
    """
    own_Q1 = np.diag(similarity_QQ)[:, None]
    nearer_Q = (similarity_QQ > own_Q1).sum(1)
    as_near_Q = (similarity_QQ == own_Q1).sum(1) - 1
    ranks_Q = 1 + nearer_Q + as_near_Q / 2
    gains: Numbers = np.where(ranks_Q <= _CUTOFF, 1 / np.log2(1 + ranks_Q), 0.0)
    return gains


def spearman(a_RN: Numbers, b_RN: Numbers) -> Numbers:
    """Return Spearman's rank correlation of each row, (R,), ties at their mean rank; NaN where a row is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=-1) for values in (a_RN, b_RN)]
    centred = [rank - rank.mean(axis=-1, keepdims=True) for rank in ranks]
    norms_R = np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
    products_R = (centred[0] * centred[1]).sum(axis=-1)
    correlations: Numbers = np.divide(products_R, norms_R, out=np.full(norms_R.shape, np.nan), where=norms_R > 0)
    return correlations


def average_precision(scores_N: Numbers, labels_N: Numbers) -> float:
    """Return the average precision of scores against labels 0 and 1, equal scores taken as one threshold."""
    order = np.argsort(-scores_N, kind="stable")
    ranked, hits = scores_N[order], np.cumsum(labels_N[order])
    if hits[-1] == 0:
        return float("nan")
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last place of each group of equals
    precision = hits[last] / (last + 1)
    recall = hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _means(first_RN: Numbers, second_RN: Numbers | None) -> Numbers:
    means: Numbers = first_RN.mean(axis=1)
    return means


def _spearmans(first_RN: Numbers, second_RN: Numbers | None) -> Numbers:
    return spearman(first_RN, _needed(second_RN))


def _average_precisions(first_RN: Numbers, second_RN: Numbers | None) -> Numbers:
    return np.array([average_precision(*row) for row in zip(first_RN, _needed(second_RN), strict=True)])


def _needed(second_RN: Numbers | None) -> Numbers:
    if second_RN is None:
        raise DataError("A sample of predictions needs its gold values.")
    return second_RN


STATISTICS: Mapping[str, Callable[[Numbers, Numbers | None], Numbers]] = {
    "mean": _means,
    "spearman": _spearmans,
    "average_precision": _average_precisions,
}
"""What a task's main score is of its examples: from (R, N) rows of them to (R,) scores."""
