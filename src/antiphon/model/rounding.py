"""How far a model's own rounding takes its vectors: what another engine's may be, and is no fault of it.

A fixed bound in 16 bits is wrong both ways: vectors of an untrained model lie close, so that rounding alone moves them
by a large share of their spread, and those of a trained one hardly move. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from sentence_transformers import SentenceTransformer

from antiphon.model import parity, variants
from antiphon.model.parity import LIMITS, Vectors, compare
from antiphon.model.trials import HALVES
from antiphon.model.variants import Variant
from antiphon.text.template import Side

MARGIN = 1.5
"""How many times the model's own rounding another engine's may be."""
_TINY = 1e-12


@dataclass(frozen=True)
class Rounding:
    """A model's vectors of some texts in float32, and those in 16 bits."""

    exact_ND: Vectors
    halves: Mapping[str, Vectors]
    """(N, D) by the name of the dtype."""

    @classmethod
    def of(
        cls,
        model: SentenceTransformer,
        texts: Sequence[str],
        side: Side,
        dtypes: Sequence[str] = tuple(HALVES.values()),
        *,
        exact_ND: Vectors | None = None,
    ) -> Rounding:
        """Measure it: the texts are encoded in each dtype, and in float32 where those vectors are not at hand."""
        found = {name: variants.encode(model, texts, side, Variant(dtype=getattr(torch, name))) for name in dtypes}
        return cls(exact(model, texts, side) if exact_ND is None else exact_ND, found)

    @cached_property
    def errors(self) -> dict[str, float]:
        """The error against spread that it makes in each of these dtypes."""
        return {name: compare(self.exact_ND, half).error_against_spread for name, half in self.halves.items()}

    @property
    def error(self) -> float:
        """The largest of these errors."""
        return max(self.errors.values(), default=0.0)

    @property
    def limit(self) -> float:
        """The error against spread that counts as equal."""
        return max(LIMITS["float32"], MARGIN * self.error)

    def likely(self, error: float) -> str:
        """Return the dtype whose own rounding is nearest to an error against spread, by their ratio.

        Not the one whose vectors are nearest: of two engines in bfloat16 each rounds its own way, and float16, which
        rounds less, lies between them.
        """
        own = {name: max(one, _TINY) for name, one in self.errors.items()}
        return min(own, key=lambda name: max(error / own[name], own[name] / max(error, _TINY)))


def exact(model: SentenceTransformer, texts: Sequence[str], side: Side) -> Vectors:
    """Return the (N, D) vectors in float32; 16-bit weights are the same numbers there."""
    if model.dtype == torch.float32:
        return parity.encode(model, texts, side=side)
    return variants.encode(model, texts, side, Variant(dtype=torch.float32))
