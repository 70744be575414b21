"""Which of the texts near a query become its negatives: how many, of which ranks, and how far below the positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from antiphon.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """Which of the texts near a query become its negatives."""

    negatives: int = 4
    """The most for each pair."""
    range_min: int = 0
    """How many of the nearest texts, other than positives, are passed over."""
    range_max: int = 100
    """How many of the nearest texts are looked at."""
    relative_margin: float | None = 0.05
    """A negative's cosine is at least this share of the positive's below it; None for no such bound."""
    absolute_margin: float | None = None
    """A negative's cosine is at least this much below the positive's."""
    max_score: float | None = None
    min_score: float | None = None
    sampling: Literal["top", "random"] = "top"
    """Take the nearest of what is left, or draw from it."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise a ConfigError for values that cannot be used, or not together."""
        if self.negatives < 1:
            raise ConfigError(f"negatives is {self.negatives}; ask for at least 1.")
        if self.range_min < 0 or self.range_max - self.range_min < self.negatives:
            raise ConfigError(
                f"Ranks from {self.range_min} to {self.range_max} cannot give {self.negatives} negatives; "
                "raise range_max or lower range_min."
            )
        for name in ("relative_margin", "absolute_margin"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}; a number of at least 0 is wanted, or none.")
        if self.sampling not in ("top", "random"):
            raise ConfigError(f"sampling is {self.sampling!r}; take 'top' or 'random'.")

    def highest(self, positive: float) -> float:
        """Return the highest cosine that a negative may have, beside a positive with this one."""
        bounds = [np.inf if self.max_score is None else self.max_score]
        if self.relative_margin is not None:
            bounds.append(positive - abs(positive) * self.relative_margin)
        if self.absolute_margin is not None:
            bounds.append(positive - self.absolute_margin)
        return min(bounds)
