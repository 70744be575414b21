"""The check of every faster way to run a model: how far its vectors are from those of the same weights in float32.

Two roundings of one sum are not each other's judge: in 16 bits a trained model's vectors differ between two ways to run
it by more than either differs from what the weights say. So a way is taken by its distance to float32, measured by what
sentence-transformers in the model's own dtype is away from it, over a few texts of many lengths.
N texts, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from antiphon.encoding import truth
from antiphon.errors import ConfigError, first_line
from antiphon.model.parity import limit_of, spread_of

Vectors = npt.NDArray[np.float32]
Plain = Callable[[SentenceTransformer, Sequence[str]], Vectors]
"""Embeds texts with a model, all of them at once, by no code of the Encoder's."""

CHECKED = (
    "One.",
    "Who wrote it, and when?",
    "A second text, of some more words than the first one has.",
    "def area(radius: float) -> float: return 3.14159 * radius ** 2",
    "Wie spät ist es? 7:45 Uhr, und der Zug fährt um acht.",
    "Third " * 24,
    "The river rose in the night, and by the morning the lower fields stood under water as far as the old mill; nobody "
    "who had seen the year before it was surprised, and those who had not were told of it all day.",
)
"""The texts that are judged by."""
TIMES: Mapping[str, float] = {"largest": 2.0, "typical": 1.5}
"""How many times as far as sentence-transformers a way may be: the farthest text, and the root of the mean square."""
ROUNDED: Mapping[str, float] = {"largest": 0.5, "typical": 0.25}
"""The limits of a way that rounds to 8 bits: a fault is still beyond them, another text's vector is at 1."""
_LEAST_SPREAD = 1e-3
"""Texts that a model can hardly tell apart count as so far apart: else rounding alone would be an error."""


@dataclass(frozen=True)
class Distance:
    """How far vectors are from those in float32, in the median distance between two texts."""

    largest: float
    """Of the farthest text: the error against spread."""
    typical: float
    """The root of the mean square over texts."""

    @classmethod
    def between(cls, vectors_ND: Vectors, truth_ND: Vectors) -> Distance:
        """Return the distance of vectors, compared as unit vectors; infinite where one is not finite."""
        a_ND, b_ND = (
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
            for vectors in (vectors_ND.astype(np.float64), truth_ND.astype(np.float64))
        )
        if not np.isfinite(a_ND).all():
            return cls(float("inf"), float("inf"))
        apart_N = np.linalg.norm(a_ND - b_ND, axis=1) / max(spread_of(b_ND), _LEAST_SPREAD)
        return cls(float(apart_N.max()), float(np.sqrt((apart_N**2).mean())))

    def limits(self, least: float) -> dict[str, float]:
        """Return how far another way may be where this is sentence-transformers' own distance; `least` is allowed."""
        return {name: max(least, times * getattr(self, name)) for name, times in TIMES.items()}

    def within(self, limits: Mapping[str, float]) -> bool:
        """Return whether both figures are at most their limits."""
        return self.largest <= limits["largest"] and self.typical <= limits["typical"]


@dataclass(frozen=True)
class Check:
    """What the check of one way to run a model says."""

    reason: str | None
    """Why it cannot be taken, as the end of a sentence; None where it can."""
    distance: Distance | None = None
    """How far it is from float32; None where that could not be told."""
    theirs: Distance | None = None
    """How far sentence-transformers in the model's dtype is."""
    refused: bool = False
    """Whether the model itself cannot embed these texts, so that the way is not to blame."""

    @property
    def error(self) -> float | None:
        """The error against spread, against float32."""
        return None if self.distance is None else self.distance.largest


class Judge:
    """Judges ways to run one state of a model."""

    def __init__(self, model: SentenceTransformer, plain: Plain, texts: Sequence[str] = CHECKED) -> None:
        self.model = model
        self.plain = plain
        self.texts = tuple(texts)
        self._kept: truth.Truth | None = None

    def check(
        self, embed: Callable[[Sequence[str]], Vectors], *, times: int = 1, limits: Mapping[str, float] | None = None
    ) -> Check:
        """Compare a way's vectors with those in float32; `times` has it embed the texts so many times over.

        `limits` takes the place of those by sentence-transformers' own distance, for a way of fewer bits.
        """
        try:
            ours_ND = embed(self.texts * times)
        except ConfigError as refusal:  # a text is longer than the model may read
            if len(self.texts) == 1:
                return Check(f"running it packed fails: {first_line(refusal)}", refused=True)
            longest = max(self.texts, key=len)
            self.texts, self._kept = tuple(text for text in self.texts if text != longest), None
            return self.check(embed, times=times, limits=limits)
        except Exception as failure:  # whatever a foreign model raises is the reason
            return Check(f"running it packed fails: {first_line(failure)}", refused=not self._embeds())
        if self._kept is None:
            self._kept = truth.of(self.model, self.plain, self.texts)
        truth_ND, theirs_ND = self._kept.float32, self._kept.theirs
        if not (np.isfinite(truth_ND).all() and np.isfinite(theirs_ND).all()):
            return Check(None)  # a broken model's vectors are as broken here
        theirs = Distance.between(theirs_ND, truth_ND)
        distance = Distance.between(ours_ND, np.tile(truth_ND, (times, 1)))
        limits = limits or theirs.limits(limit_of(self.model))
        if distance.within(limits):
            return Check(None, distance, theirs)
        reason = (
            f"its packed vectors differ from those in float32 by {distance.largest:.1e} of their spread and typically "
            f"by {distance.typical:.1e} (limits {limits['largest']:.0e} and {limits['typical']:.0e}; "
            f"sentence-transformers: {theirs.largest:.1e} and {theirs.typical:.1e})"
        )
        return Check(reason, distance, theirs)

    def _embeds(self) -> bool:
        try:
            self.plain(self.model, self.texts)
        except Exception:  # which one is for whoever embeds these texts to tell
            return False
        return True
