"""What a probe gets: the model, a way to embed, and its data; and what it gives back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError
from antiphon.evaluation.embedder import CountingEmbedder, ModelEncode
from antiphon.evaluation.probes.material import Material
from antiphon.evaluation.statistics import Sample
from antiphon.evaluation.vector_store import Vectors
from antiphon.model.prompts import prompt_of
from antiphon.model.unit_vectors import unit
from antiphon.text.template import Side, Template, fills_slots


@dataclass(frozen=True)
class Context:
    """A model under a probe."""

    model: SentenceTransformer
    embedder: CountingEmbedder
    material: Material

    def embed(self, texts: Sequence[str], side: Side = "query") -> Vectors:
        """Return (N, D) unit vectors, with the model's own prompts."""
        return unit(self.embedder.embed(texts, prompt_of(self.model, side), side))

    def with_template(self, template: Template) -> Context:
        """Return the same weights under another template.

        Raises ConfigError where the template is baked into the tokenizer or is none of ours.
        """
        if not fills_slots(self.model):
            raise ConfigError(
                "This probe changes the template, which in this model is a part of its tokenizer or none at all; build "
                "it with pooling mean, so that the template lives in a module."
            )
        module = copy.copy(self.model[0])  # the parameters are shared
        module.template = template.to_dict()
        other = SentenceTransformer(modules=[module, *list(self.model)[1:]], device=str(self.model.device))
        return Context(other, CountingEmbedder(ModelEncode(other)), self.material)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found: its main figure, all figures, and the examples of the main one where it is their mean."""

    metric: str
    main: float
    metrics: Mapping[str, float]
    sample: Sample | None = None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def cosines(a_ND: Vectors, b_ND: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosine of each row with its partner, (N,), of unit vectors."""
    paired: npt.NDArray[np.float64] = (a_ND.astype(np.float64) * b_ND).sum(axis=1)
    return paired
