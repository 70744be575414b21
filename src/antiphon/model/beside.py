"""What an endpoint does otherwise than a model: nothing, rounding, or a cause. N texts, D width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.errors import DataError, ParityError
from antiphon.model import parity, variants
from antiphon.model.causes import Diagnosis, diagnose, too_long
from antiphon.model.findings import Finding, wrong
from antiphon.model.parity import LIMITS, Vectors, compare, limit_of, spread_of, unlike_texts
from antiphon.model.prompts import prompt_of
from antiphon.model.remedies import remedy_of
from antiphon.model.rounding import Rounding
from antiphon.model.server import Endpoint, Server
from antiphon.model.unit_vectors import apart, unit
from antiphon.text.template import Side

COARSE = 0.5
"""An error of this many spreads at most that nothing else explains is rounding of another kind."""
LONG = "length"
ODD: Mapping[str, list[str]] = {
    "white space": ["  white space at both ends \n", "\ta tab in front"],
    "special tokens": ["a </s> in the middle", "<|im_end|>", "a chat <eos> <|endoftext|> [/INST]"],
}
"""Texts that right engines may read otherwise, by what it is about."""
BY_IDS = ("llamacpp",)
"""Engines whose files hold no template: that they read texts without one is no fault of theirs; clients send ids."""
BY_STRINGS = ("EOS", "BOS")
"""Causes that such a file can mend: it says whether they are put on strings."""
_NO_FRAME = "this engine's files hold no template"
_CUT = "only texts that the model cuts differ: the endpoint cuts them otherwise"


@dataclass(frozen=True)
class ById:
    """A server that is sent the token ids which a model reads of texts."""

    server: Server
    model: SentenceTransformer
    side: Side

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (N, D) vectors; what `Server.encode` raises."""
        prompt = prompt_of(self.model, self.side)
        return self.server.encode([variants.tokens(self.model, text, prompt, self.side)[0] for text in texts])


def compared(
    target: Endpoint, model: SentenceTransformer, side: Side, own: Vectors, vectors: Vectors, engine: str
) -> list[Finding | None]:
    """Compare with a model's own vectors: equal, equal but for rounding, or the cause."""
    if own.shape != vectors.shape:
        sentence = f"vectors have {vectors.shape[1]} dimensions and the model's {own.shape[1]}"
        return [wrong("dimensions", sentence, engine)]
    agreed, limit, rounding = _agreement(own, vectors, LIMITS["float32"]), limit_of(model), None
    if agreed is None:
        rounding = Rounding.of(model, unlike_texts(), side)
        limit = max(limit, rounding.limit)
        agreed = _agreement(own, vectors, limit, rounding)
    if agreed is not None:
        return [agreed, *_where_engines_part(target, model, side, own, limit, engine)]
    found = diagnose(model, target, side=side, names=("the model", "the endpoint"), limit=limit)
    cause = _cause(found, engine)
    if isinstance(target, Server) and engine in BY_IDS and (cause is None or cause.topic not in BY_STRINGS):
        right = _by_ids(target, model, side, own, limit, rounding)
        if right is not None:
            sentence = "sent as a string, a text gets another vector: " + (
                _NO_FRAME if cause is None else cause.sentence
            )
            strings = Finding("strings", sentence, remedy=remedy_of("template", engine))
            return [right, strings, *_where_engines_part(ById(target, model, side), model, side, own, limit, engine)]
    return [cause or _unexplained(target, model, side, own, vectors, found, engine)]


def _agreement(own: Vectors, vectors: Vectors, limit: float, rounding: Rounding | None = None) -> Finding | None:
    """Return that vectors are the model's own, or so but for its rounding in 16 bits; None where they are not."""
    found = compare(own, vectors, limit=limit)
    if not found.equal:
        return None
    if rounding is None or found.error_against_spread <= LIMITS["float32"]:
        return Finding("model", f"as the model: {found}")
    error = found.error_against_spread
    sentence = (
        f"as the model, in 16 bits (by the error's size {rounding.likely(error)}): error against spread {error:.2e}, "
        f"and the model's own rounding is {rounding.error:.2e}"
    )
    return Finding("model", sentence)


def _by_ids(
    target: Endpoint, model: SentenceTransformer, side: Side, own: Vectors, limit: float, rounding: Rounding | None
) -> Finding | None:
    """Return that an endpoint gives the model's vectors when it is sent token ids; None where it does not."""
    if not isinstance(target, Server) or not target.takes_ids:
        return None
    try:
        agreed = _agreement(own, ById(target, model, side).encode(unlike_texts()), limit, rounding)
    except (DataError, ParityError):  # it takes none, or none of these
        return None
    return None if agreed is None else replace(agreed, sentence=f"given token ids, {agreed.sentence}")


def _cause(found: Diagnosis, engine: str) -> Finding | None:
    """Return the cause that explains the difference best, None where none does."""
    best = min(found.causes, key=lambda cause: cause.parity.error_against_spread, default=None)
    return None if best is None else wrong(best.topic, best.sentence, engine)


def _unexplained(
    target: Endpoint,
    model: SentenceTransformer,
    side: Side,
    own: Vectors,
    vectors: Vectors,
    found: Diagnosis,
    engine: str,
) -> Finding:
    """Tell what can be told where no cause that was tried explains the difference: which texts differ, or how much."""
    error, limit = found.parity.error_against_spread, found.parity.limit
    if found.cutting:
        return wrong("truncation", _CUT, engine)
    spread = spread_of(unit(own))
    ids = [variants.tokens(model, text, prompt_of(model, side), side)[0] for text in unlike_texts()]
    differ = np.linalg.norm(unit(own) - unit(vectors), axis=1) > limit * spread
    long = sorted(len(row) for row, other in zip(ids, differ, strict=True) if other)
    short = sorted(len(row) for row, other in zip(ids, differ, strict=True) if not other)
    if short and long and long[0] > short[-1]:
        sentence = f"sequences of up to {short[-1]} tokens agree, those of {long[0]} and more do not: it cuts between"
        return wrong("truncation", sentence, engine)
    if _by_ids(target, model, side, own, limit, None) is not None:
        sentence = "given the model's token ids it gives the model's vectors, so its tokenizer reads texts otherwise"
        return wrong("tokenizer", sentence, engine)
    near = min(found.tested, key=lambda cause: cause.parity.error_against_spread, default=None)
    hint = "" if near is None else f"; nearest comes: {near.sentence} ({near.parity.error_against_spread:.2e})"
    if error <= COARSE:
        sentence = f"nearly the model (error against spread {error:.2e}): it computes coarser than in 16 bits{hint}"
        return wrong("dtype", sentence, engine)
    return wrong("weights", f"not the model (error against spread {error:.2e}), and by no known cause{hint}", engine)


def _where_engines_part(
    target: Endpoint, model: SentenceTransformer, side: Side, own: Vectors, limit: float, engine: str
) -> list[Finding]:
    """Look at texts that an endpoint may read otherwise though it is right on others: too long ones, and odd ones.

    Where one is cut otherwise is wrong; the rest is good to know.
    """
    spread = spread_of(unit(own))
    found = []
    for topic, texts in {**ODD, LONG: too_long(model, side)}.items():
        try:
            same = not texts or apart(parity.encode(model, texts, side=side), target.encode(texts)) / spread <= limit
        except DataError as error:
            found.append(Finding(topic, f"a text of this kind is refused: {error}"))
            continue
        if same:
            continue
        if topic == LONG:
            part = diagnose(model, target, side=side, names=("the model", "the endpoint"), limit=limit)
            if not part.parity.equal:  # it counts in float32, where the model's own rounding is no difference
                found.append(_cause(part, engine) or wrong("truncation", _CUT, engine))
        else:
            found.append(Finding(topic, f"{', '.join(map(repr, texts))} are read otherwise than the model reads them"))
    return found
