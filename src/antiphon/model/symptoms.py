"""What can be told of an endpoint without a right answer at hand. N texts, D width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from antiphon.errors import DataError
from antiphon.model import parity
from antiphon.model.findings import Finding, wrong
from antiphon.model.parity import Vectors
from antiphon.model.remedies import remedy_of
from antiphon.model.server import Endpoint
from antiphon.model.unit_vectors import apart, is_unit

SHAKY = 0.25
"""A difference of this many spreads between answers for one text is more than rounding in 16 bits."""
MOVED = 1e-3
"""A difference of this many spreads is more than nothing: what was changed was read."""
WORDS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_AS_LONG = 0.1


def alike(vectors: Vectors, engine: str) -> Finding:
    """Say how alike the vectors of unlike texts are."""
    health = parity.health(vectors)
    if health.collapsed:
        return Finding("alike", str(health), False, remedy_of("alike", engine))
    return Finding("alike", str(health))


def as_long(own: Vectors, vectors: Vectors) -> bool:
    """Return whether vectors are as long as a model's, which may have no Normalize module."""
    return bool(np.allclose(np.linalg.norm(own, axis=1), np.linalg.norm(vectors, axis=1), rtol=_AS_LONG))


def length_of_vectors(vectors: Vectors, engine: str, *, wrong: bool) -> Finding | None:
    """Say where vectors are not of length 1, which is wrong unless the model's own are so."""
    if is_unit(vectors):
        return None
    norms = np.linalg.norm(vectors, axis=1)
    sentence = f"vectors have lengths from {norms.min():.3g} to {norms.max():.3g} and not 1: a dot product is no cosine"
    return Finding("normalisation", sentence, wrong, remedy_of("normalisation", engine))


def unsteady(
    target: Endpoint, texts: Sequence[str], vectors: Vectors, spread: float, engine: str
) -> list[Finding | None]:
    """Look whether a text's vector depends on when it is asked for and on what is beside it."""
    some = list(texts[:8])
    again = apart(target.encode(some), target.encode(some)) / spread
    if again > SHAKY:
        return [
            wrong("repeated", f"the same request gives other vectors each time ({again:.2f} of the spread)", engine)
        ]
    alone = np.concatenate([target.encode([text]) for text in some])
    try:
        beside = target.encode([*some, " ".join(texts[:12])])[: len(some)]
    except DataError:  # so long a text is refused
        beside = target.encode([*some, max(texts, key=len)])[: len(some)]
    moved = max(apart(alone, beside) / spread, apart(alone, vectors[: len(some)]) / spread)
    if moved <= SHAKY:
        return []
    return [wrong("companion", f"a text's vector depends on what is beside it ({moved:.2f} of the spread)", engine)]


def end_of_texts(target: Endpoint, spread: float) -> Finding | None:
    """Find how many words of a text are read, by two that differ in the last one."""
    read = 0
    for words in WORDS:
        pair = ["word " * words + ending for ending in ("apples", "thunder")]
        try:
            one, other = target.encode(pair)
        except DataError as error:
            return Finding("length", f"a text of {words} words is refused: {error}")
        if apart(one[None], other[None]) / spread <= MOVED:
            return Finding("length", f"a text is read up to between {read} and {words} words; what follows is cut")
        read = words
    return Finding("length", f"a text is read up to {read} words and beyond")


def white_space(target: Endpoint, spread: float) -> Finding:
    """Say whether white space at the end of a text is read."""
    bare, spaced = target.encode(["a text", "a text "])
    taken_off = apart(bare[None], spaced[None]) / spread <= MOVED
    return Finding("white space", f"white space at the end of a text is {'taken off' if taken_off else 'read'}")
