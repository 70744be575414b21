"""What is wrong with an endpoint: what it does to texts by itself, and what it does otherwise than a folder says.

Without a right answer at hand: are unlike texts told apart, is an answer repeated, does a companion change it, up to
where is a text heard, how long are the vectors. Beside a model: the causes of `diagnose`, by the model's own rounding.
N texts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from antiphon.errors import DataError
from antiphon.model import parity, variants
from antiphon.model.causes import HALVES, diagnose
from antiphon.model.parity import LIMITS, NO_SPREAD, Vectors, compare, limit_of, spread_of, unlike_texts
from antiphon.model.remedies import remedy_of
from antiphon.model.server import Endpoint
from antiphon.model.variants import Variant
from antiphon.text.template import Side

SHAKY = 0.25
"""A difference of this many spreads between answers for one text is more than rounding in 16 bits."""
HEARD = 1e-3
"""A difference of this many spreads is more than nothing: what was changed was heard."""
ROOM = 1.5
"""How many times the model's own rounding in 16 bits another engine's may be."""
WORDS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_UNIT = 1e-2
_AS_LONG = 0.1


@dataclass(frozen=True)
class Folder:
    """A model of this process as an endpoint."""

    model: SentenceTransformer
    side: Side = "query"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (N, D) vectors."""
        return parity.encode(self.model, texts, side=self.side)


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    topic: str
    sentence: str
    wrong: bool = False
    """Whether it has to be mended; else it is good to know."""
    remedy: str = ""


@dataclass(frozen=True)
class Examination:
    """What came out, what is wrong first."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be mended."""
        return not any(found.wrong for found in self.findings)


def examine(
    target: Endpoint, model: SentenceTransformer | None = None, *, side: Side = "query", engine: str = ""
) -> Examination:
    """Return what is wrong with a target, and where a model is given, what it does otherwise than that.

    `engine` is what the target runs on, for the remedy's words. Raises ParityError where the target does not answer.
    """
    texts = unlike_texts()
    vectors = target.encode(texts)
    if not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
        return Examination((_wrong("numbers", "some vectors are zero or not finite", engine),))
    spread = spread_of(_at_length_1(vectors))
    if spread < NO_SPREAD:
        return Examination((_wrong("alike", "unlike texts get one and the same vector", engine),))
    own = None if model is None else parity.encode(model, texts, side=side)
    raw = isinstance(target, Folder) or (own is not None and _as_long(own, vectors))
    found = [_alike(vectors, engine), _length_of_vectors(vectors, engine, wrong=not raw)]
    found += _shaky(target, texts, vectors, spread, engine)
    if not any(one is not None and one.topic in ("companion", "repeated") for one in found):
        found += [_end_of_texts(target, spread), _white_space(target, spread)]
        if model is not None and own is not None:
            found += _beside(target, model, side, own, vectors, engine)
    told = [one for one in found if one is not None]
    return Examination(tuple(sorted(told, key=lambda one: not one.wrong)))


def _wrong(topic: str, sentence: str, engine: str) -> Finding:
    return Finding(topic, sentence, True, remedy_of(topic, engine))


def _alike(vectors: Vectors, engine: str) -> Finding:
    health = parity.health(vectors)
    if health.collapsed:
        return Finding("alike", str(health), False, remedy_of("alike", engine))
    return Finding("alike", str(health))


def _as_long(own: Vectors, vectors: Vectors) -> bool:
    """Return whether vectors are as long as a model's, which may have no Normalize module."""
    return bool(np.allclose(np.linalg.norm(own, axis=1), np.linalg.norm(vectors, axis=1), rtol=_AS_LONG))


def _length_of_vectors(vectors: Vectors, engine: str, *, wrong: bool) -> Finding | None:
    norms = np.linalg.norm(vectors, axis=1)
    if np.allclose(norms, 1.0, atol=_UNIT):
        return None
    sentence = f"vectors have lengths from {norms.min():.3g} to {norms.max():.3g} and not 1: a dot product is no cosine"
    return Finding("normalisation", sentence, wrong, remedy_of("normalisation", engine))


def _shaky(
    target: Endpoint, texts: Sequence[str], vectors: Vectors, spread: float, engine: str
) -> list[Finding | None]:
    """Look whether a text's vector depends on when it is asked for and on what is beside it."""
    some = list(texts[:8])
    again = _apart(target.encode(some), target.encode(some), spread)
    if again > SHAKY:
        return [
            _wrong("repeated", f"the same request gives other vectors each time ({again:.2f} of the spread)", engine)
        ]
    alone = np.concatenate([target.encode([text]) for text in some])
    try:
        beside = target.encode([*some, " ".join(texts[:12])])[: len(some)]
    except DataError:  # so long a text is refused
        beside = target.encode([*some, max(texts, key=len)])[: len(some)]
    moved = max(_apart(alone, beside, spread), _apart(alone, vectors[: len(some)], spread))
    if moved <= SHAKY:
        return []
    return [_wrong("companion", f"a text's vector depends on what is beside it ({moved:.2f} of the spread)", engine)]


def _end_of_texts(target: Endpoint, spread: float) -> Finding | None:
    """Find how many words of a text are heard, by two that differ in the last one."""
    heard = 0
    for words in WORDS:
        pair = ["word " * words + ending for ending in ("apples", "thunder")]
        try:
            one, other = target.encode(pair)
        except DataError as error:
            return Finding("length", f"a text of {words} words is refused: {error}")
        if _apart(one[None], other[None], spread) <= HEARD:
            return Finding("length", f"a text is heard up to between {heard} and {words} words; what follows is cut")
        heard = words
    return Finding("length", f"a text is heard up to {heard} words and beyond")


def _white_space(target: Endpoint, spread: float) -> Finding:
    bare, spaced = target.encode(["a text", "a text "])
    taken_off = _apart(bare[None], spaced[None], spread) <= HEARD
    return Finding("white space", f"white space at the end of a text is {'taken off' if taken_off else 'heard'}")


def _beside(
    target: Endpoint, model: SentenceTransformer, side: Side, own: Vectors, vectors: Vectors, engine: str
) -> list[Finding | None]:
    """Compare with a model's own vectors: equal, equal but for rounding, or the cause."""
    if own.shape != vectors.shape:
        sentence = f"vectors have {vectors.shape[1]} dimensions and the model's {own.shape[1]}"
        return [_wrong("dimensions", sentence, engine)]
    plain = compare(own, vectors, limit=limit_of(model))
    if plain.error_against_spread <= LIMITS["float32"]:
        return [Finding("model", f"as the model: {plain}")]
    halves = {name: _rounded(model, dtype, side) for dtype, name in HALVES.items()}
    nearest = min(halves, key=lambda name: compare(halves[name], vectors).error_against_spread)
    rounding = max(compare(own, half).error_against_spread for half in halves.values())
    limit = max(limit_of(model), ROOM * rounding)
    if plain.error_against_spread <= limit:
        sentence = (
            f"as the model, in 16 bits (nearest to {nearest}): error against spread {plain.error_against_spread:.2e}, "
            f"and the model's own rounding is {rounding:.2e}"
        )
        return [Finding("model", sentence)]
    found = diagnose(model, target, side=side, names=("the model", "the endpoint"), limit=limit)
    if found.causes:
        best = min(found.causes, key=lambda cause: cause.parity.error_against_spread)
        return [_wrong(best.topic, best.sentence, engine)]
    near = min(found.tested, key=lambda cause: cause.parity.error_against_spread, default=None)
    hint = "" if near is None else f"; nearest comes: {near.sentence} ({near.parity.error_against_spread:.2e})"
    sentence = f"not the model (error against spread {plain.error_against_spread:.2e}), and by no known cause{hint}"
    return [_wrong("weights", sentence, engine)]


def _rounded(model: SentenceTransformer, dtype: torch.dtype, side: Side) -> Vectors:
    return variants.encode(model, unlike_texts(), side, Variant(dtype=dtype))


def _apart(a: Vectors, b: Vectors, spread: float) -> float:
    """Return the largest distance between two sets of vectors, at length 1, in spreads."""
    return float(np.linalg.norm(_at_length_1(a) - _at_length_1(b), axis=1).max() / spread)


def _at_length_1(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
