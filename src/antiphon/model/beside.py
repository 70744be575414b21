"""What an endpoint does otherwise than a model: nothing, rounding, or a cause. N texts, D width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.errors import DataError, ParityError
from antiphon.model import parity, variants
from antiphon.model.causes import Diagnosis, diagnose, too_long
from antiphon.model.findings import Finding, wrong
from antiphon.model.parity import LIMITS, Vectors, compare, limit_of, spread_of, unlike_texts
from antiphon.model.prompts import prompt_of
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
_CUT = "only texts that the model cuts differ: the endpoint cuts them otherwise"


def compared(
    target: Endpoint, model: SentenceTransformer, side: Side, own: Vectors, vectors: Vectors, engine: str
) -> list[Finding | None]:
    """Compare with a model's own vectors: equal, equal but for rounding, or the cause."""
    if own.shape != vectors.shape:
        sentence = f"vectors have {vectors.shape[1]} dimensions and the model's {own.shape[1]}"
        return [wrong("dimensions", sentence, engine)]
    plain = compare(own, vectors, limit=limit_of(model))
    if plain.error_against_spread <= LIMITS["float32"]:
        right = Finding("model", f"as the model: {plain}")
        return [right, *_where_engines_part(target, model, side, own, limit_of(model), engine)]
    rounding = Rounding.of(model, unlike_texts(), side)
    limit = max(limit_of(model), rounding.limit)
    if plain.error_against_spread <= limit:
        sentence = (
            f"as the model, in 16 bits (nearest to {rounding.nearest(vectors)}): error against spread "
            f"{plain.error_against_spread:.2e}, and the model's own rounding is {rounding.error:.2e}"
        )
        return [Finding("model", sentence), *_where_engines_part(target, model, side, own, limit, engine)]
    found = diagnose(model, target, side=side, names=("the model", "the endpoint"), limit=limit)
    return [_cause(found, engine) or _unexplained(target, model, side, own, vectors, found, engine)]


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
    if isinstance(target, Server) and target.takes_ids and _right_by_ids(target, ids, own, limit):
        sentence = "given the model's token ids it gives the model's vectors, so its tokenizer reads texts otherwise"
        return wrong("tokenizer", sentence, engine)
    near = min(found.tested, key=lambda cause: cause.parity.error_against_spread, default=None)
    hint = "" if near is None else f"; nearest comes: {near.sentence} ({near.parity.error_against_spread:.2e})"
    if error <= COARSE:
        sentence = f"nearly the model (error against spread {error:.2e}): it computes coarser than in 16 bits{hint}"
        return wrong("dtype", sentence, engine)
    return wrong("weights", f"not the model (error against spread {error:.2e}), and by no known cause{hint}", engine)


def _right_by_ids(target: Server, ids: Sequence[Sequence[int]], own: Vectors, limit: float) -> bool:
    try:
        return compare(own, target.encode(ids), limit=limit).equal
    except (DataError, ParityError):  # it takes none, or none of these
        return False


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
            found.append(_cause(part, engine) or wrong("truncation", _CUT, engine))
        else:
            found.append(Finding(topic, f"{', '.join(map(repr, texts))} are read otherwise than the model reads them"))
    return found
