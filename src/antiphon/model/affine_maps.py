"""Calibrations as affine maps of a vector, fitted on the moments of other vectors: what they are and how they chain.

Raw vectors of a causal language model lie in a narrow cone; each map opens it in its own way, without labels. D width,
N vectors, B vectors of a batch. Everything is reckoned in fp64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.errors import ConfigError, DataError

Doubles = npt.NDArray[np.float64]

_ROUNDING = 1e-6
"""A deviation below this share of a dimension's mean is the rounding of fp32, and the dimension counts as constant."""


@dataclass(frozen=True)
class AffineMap:
    """Takes x (D,) to weight @ x + bias."""

    weight: Doubles
    bias: Doubles

    def then(self, other: AffineMap) -> AffineMap:
        """Return both maps as one, this one first."""
        return AffineMap(other.weight @ self.weight, other.weight @ self.bias + other.bias)


class Moments:
    """Count, mean (D,) and covariance (D, D) of a stream of vectors, in memory that does not grow with it.

    Batches are joined by Chan, Golub and LeVeque's formula (1979), so a large mean costs no digits.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean: Doubles = np.zeros(width)
        self._scatter: Doubles = np.zeros((width, width))

    def add(self, vectors_BD: npt.ArrayLike) -> None:
        """Take a batch in."""
        batch_BD = np.asarray(vectors_BD, dtype=np.float64)
        if not len(batch_BD):
            return
        mean = batch_BD.mean(axis=0)
        apart, total = mean - self.mean, self.count + len(batch_BD)
        centred_BD = batch_BD - mean
        self._scatter += centred_BD.T @ centred_BD + np.outer(apart, apart) * (self.count * len(batch_BD) / total)
        self.mean = self.mean + apart * (len(batch_BD) / total)
        self.count = total

    @property
    def covariance(self) -> Doubles:
        """Return the covariance (D, D), over the count."""
        return self._scatter / max(self.count, 1)

    def mapped(self, by: AffineMap) -> Moments:
        """Return the moments of the mapped vectors."""
        out = Moments(len(by.bias))
        out.count, out.mean = self.count, by.weight @ self.mean + by.bias
        out._scatter = by.weight @ self._scatter @ by.weight.T
        return out


Head = Callable[[], Doubles]
"""Gives the vocabulary head (V, D), which is read only where a method asks for it."""
Fit = Callable[[Moments, float | None, Head], AffineMap]


@dataclass(frozen=True)
class Method:
    """A row of METHODS."""

    fit: Fit
    says: str
    """What it does, and who says so."""
    number: str | None = None
    """What the number behind its name means; None where it takes none."""


def _center(moments: Moments, number: float | None, head: Head) -> AffineMap:
    return AffineMap(np.eye(len(moments.mean)), -moments.mean)


def _standardize(moments: Moments, number: float | None, head: Head) -> AffineMap:
    deviation = np.sqrt(np.diag(moments.covariance))
    varies = deviation > _ROUNDING * np.abs(moments.mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)  # a constant tells nothing: it is 0
    return AffineMap(np.diag(scale), -scale * moments.mean)


def _without_top(moments: Moments, number: float | None, head: Head) -> AffineMap:
    width = len(moments.mean)
    most = min(width, moments.count) - 1
    k = max(1, round(width / 100)) if number is None else round(number)
    if not (1 <= k < most and (number is None or k == number)):
        raise ConfigError(
            f"all-but-the-top of {k if number is None else number:g} cannot be fitted on {moments.count} texts with "
            f"vectors of {width} dimensions; take a whole number from 1 to {most - 1}, or more texts."
        )
    top_Dk = np.linalg.eigh(moments.covariance)[1][:, -k:]
    weight = np.eye(width) - top_Dk @ top_Dk.T
    return AffineMap(weight, -weight @ moments.mean)


def _whiten(moments: Moments, number: float | None, head: Head) -> AffineMap:
    covariance = moments.covariance
    width, trace = len(covariance), float(np.trace(covariance))
    share = _oas(covariance, moments.count) if number is None else number
    if not 0 < share <= 1:
        raise ConfigError(f"The shrinkage of whiten is {share:g}; a number above 0, at most 1, is wanted.")
    values, vectors_DD = np.linalg.eigh((1 - share) * covariance + share * trace / width * np.eye(width))
    weight = (vectors_DD / np.sqrt(values)) @ vectors_DD.T
    return AffineMap(weight, -weight @ moments.mean)


def _oas(covariance: Doubles, count: int) -> float:
    """Return the shrinkage towards the scaled identity: Chen, Wiesel, Eldar and Hero 2010, equation 23."""
    width, trace, square = len(covariance), float(np.trace(covariance)), float((covariance**2).sum())
    above = (1 - 2 / width) * square + trace**2
    below = (count + 1 - 2 / width) * (square - trace**2 / width)
    return 1.0 if below <= 0 else max(min(1.0, above / below), 1e-6)


def _embed_filter(moments: Moments, number: float | None, head: Head) -> AffineMap:
    share = 0.5 if number is None else number
    width = len(moments.mean)
    kept = round(share * width)
    if not (0 < share <= 1 and kept):
        raise ConfigError(f"The share of embed_filter is {share:g}; a number above 0, at most 1, is wanted.")
    head_VD = head()
    if head_VD.shape[1] != width:
        raise ConfigError(
            f"embed_filter needs vectors of the language model's width ({head_VD.shape[1]}) and these have {width}."
        )
    vectors_DD = np.linalg.eigh(head_VD.T @ head_VD)[1]
    first = (width - kept) // 2
    middle_Dk = vectors_DD[:, first : first + kept]
    return AffineMap(middle_Dk @ middle_Dk.T, np.zeros(width))


METHODS: Mapping[str, Method] = {
    "center": Method(_center, "takes the mean off"),
    "standardize": Method(_standardize, "takes the mean off and divides each dimension by its deviation"),
    "all-but-the-top": Method(
        _without_top,
        "takes off the mean and the first principal components (Mu and Viswanath 2018, algorithm 1)",
        "how many components; a hundredth of the width without it",
    ),
    "whiten": Method(
        _whiten,
        "makes the covariance the identity (Su and others 2021), shrunk towards a scaled identity",
        "the share of the shrinkage; estimated without it (OAS)",
    ),
    "embed_filter": Method(
        _embed_filter,
        "keeps the middle singular directions of the vocabulary head (EmbedFilter, arXiv 2606.07502)",
        "the share of the directions that is kept; a half without it",
    ),
}
SEPARATOR = "+"


def parsed(method: str | Sequence[str]) -> list[tuple[str, float | None]]:
    """Return the steps of a method: names of METHODS, each with a number behind a colon or none.

    Several are a sequence, or joined by a plus sign: `center+embed_filter:0.5`. Raises ConfigError for others.
    """
    written = method.split(SEPARATOR) if isinstance(method, str) else list(method)
    steps = []
    for step in written:
        name, colon, number = str(step).strip().partition(":")
        if name not in METHODS:
            raise ConfigError(f"There is no calibration {name!r}; take of {', '.join(METHODS)}, joined by +.")
        if colon and METHODS[name].number is None:
            raise ConfigError(f"{name} takes no number, and {step!r} gives one.")
        try:
            steps.append((name, float(number) if colon else None))
        except ValueError:
            raise ConfigError(f"The number of {name} in {step!r} is none; write one such as {name}:0.5.") from None
    if not steps:
        raise ConfigError(f"No calibration is named; take of {', '.join(METHODS)}.")
    return steps


def fit(method: str | Sequence[str], moments: Moments, head: Head) -> AffineMap:
    """Return the map of a method, each step fitted on what the steps before it leave.

    Raises ConfigError for a method that cannot be used, DataError for vectors that are too few or all alike.
    """
    steps = parsed(method)
    width = len(moments.mean)
    alike = np.sqrt(np.diag(moments.covariance)) <= _ROUNDING * np.abs(moments.mean)
    if moments.count < 2 or alike.all():
        raise DataError(
            f"{'One text has' if moments.count == 1 else f'{moments.count} texts have'} no spread that a calibration "
            "could be fitted on; give at least two texts that differ, better several hundred."
        )
    whole = AffineMap(np.eye(width), np.zeros(width))
    for name, number in steps:
        step = METHODS[name].fit(moments, number, head)
        whole, moments = whole.then(step), moments.mapped(step)
    return whole


def record_of(steps: Sequence[tuple[str, float | None]]) -> str:
    """Return the steps in one word, as `parsed` reads them."""
    return SEPARATOR.join(name if number is None else f"{name}:{number:g}" for name, number in steps)
