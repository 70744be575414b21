"""How far a model's own rounding takes its vectors: what another engine's may be, and is no fault of it.

A fixed bound in 16 bits is wrong both ways: vectors of an untrained model lie close, so that rounding alone moves them
by a large share of their spread, and those of a trained one hardly move. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from sentence_transformers import SentenceTransformer

from antiphon.model import parity, variants
from antiphon.model.parity import LIMITS, Vectors, compare
from antiphon.model.trials import HALVES
from antiphon.model.variants import Variant
from antiphon.text.template import Side

MARGIN = 1.5
"""How many times the model's own rounding another engine's may be."""


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

    @property
    def error(self) -> float:
        """The largest error against spread that it makes in these dtypes."""
        return max((compare(self.exact_ND, half).error_against_spread for half in self.halves.values()), default=0.0)

    @property
    def limit(self) -> float:
        """The error against spread that counts as equal."""
        return max(LIMITS["float32"], MARGIN * self.error)

    def nearest(self, vectors: Vectors) -> str:
        """Return the dtype whose vectors are nearest to those given."""
        return min(self.halves, key=lambda name: compare(self.halves[name], vectors).error_against_spread)


def exact(model: SentenceTransformer, texts: Sequence[str], side: Side) -> Vectors:
    """Return the (N, D) vectors in float32; 16-bit weights are the same numbers there."""
    if model.dtype == torch.float32:
        return parity.encode(model, texts, side=side)
    return variants.encode(model, texts, side, Variant(dtype=torch.float32))
