"""What is wrong with an endpoint: what it does to texts by itself, and what it does otherwise than a folder says.

Without a right answer at hand: are unlike texts told apart, is an answer repeated, does a companion change it, how
far is a text read, how long are the vectors. Beside a model: the causes of `diagnose`, by the model's own rounding.
N texts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.model import beside, parity, symptoms
from antiphon.model.findings import Examination, wrong
from antiphon.model.parity import NO_SPREAD, Vectors, spread_of, unlike_texts
from antiphon.model.server import Endpoint
from antiphon.model.unit_vectors import unit
from antiphon.text.template import Side


@dataclass(frozen=True)
class Folder:
    """A model of this process as an endpoint."""

    model: SentenceTransformer
    side: Side = "query"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (N, D) vectors."""
        return parity.encode(self.model, texts, side=self.side)


def examine(
    target: Endpoint, model: SentenceTransformer | None = None, *, side: Side = "query", engine: str = ""
) -> Examination:
    """Return what is wrong with a target, and where a model is given, what it does otherwise than that.

    `engine` is what the target runs on, for the remedy's words. Raises ParityError where the target does not answer.
    """
    texts = unlike_texts()
    vectors = target.encode(texts)
    if not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
        return Examination((wrong("numbers", "some vectors are zero or not finite", engine),))
    spread = spread_of(unit(vectors))
    if spread < NO_SPREAD:
        return Examination((wrong("alike", "unlike texts get one and the same vector", engine),))
    own = None if model is None else parity.encode(model, texts, side=side)
    raw = isinstance(target, Folder) or (own is not None and symptoms.as_long(own, vectors))
    found = [symptoms.alike(vectors, engine), symptoms.length_of_vectors(vectors, engine, wrong=not raw)]
    found += symptoms.unsteady(target, texts, vectors, spread, engine)
    if not any(one is not None and one.topic in ("companion", "repeated") for one in found):
        found += [symptoms.end_of_texts(target, spread), symptoms.white_space(target, spread)]
        if model is not None and own is not None:
            found += beside.compared(target, model, side, own, vectors, engine)
    present = [one for one in found if one is not None]
    return Examination(tuple(sorted(present, key=lambda one: not one.wrong)))
