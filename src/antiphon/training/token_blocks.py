"""Texts packed into rows of equal length, as LLM2Vec's masked next token prediction reads them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from antiphon.text.tokens import PieceTokenizer

GROUP = 1000
"""Texts that are joined; what is left of a group beyond its last whole block is dropped, as in the original."""


def token_blocks(texts: Sequence[str], pieces: PieceTokenizer, block: int) -> list[list[int]]:
    """Return rows of `block` token ids: BOS and text after text, joined in order and cut."""
    opening = [] if pieces.specials.bos is None else [pieces.specials.bos]
    rows: list[list[int]] = []
    for start in range(0, len(texts), GROUP):
        ids = [[*opening, *row] for row in pieces.texts(texts[start : start + GROUP], first=True)]
        joined = list(chain.from_iterable(ids))
        rows += [joined[at : at + block] for at in range(0, len(joined) - block + 1, block)]
    return rows
