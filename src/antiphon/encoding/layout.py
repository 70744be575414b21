"""Texts laid into rows without padding between them: where each token goes, at which position, and what it may see.

Texts that begin with the same tokens can share them: the beginning stands once in a row and every text of the row sees
it. Under causal attention nothing in it depends on what follows, so states and gradients are those of a beginning of
each text's own. Shapes: N tokens of all texts, one text behind the other, R rows, W width of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.encoding.masks import PADDING, PREFIX
from antiphon.encoding.packing import BestFitRows
from antiphon.encoding.tokenised import common

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Texts that may stand in one row."""

    texts: Numbers
    """Their numbers."""
    shared: int = 0
    """Tokens at their beginning that are the same in all of them; fewer than the shortest has."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of texts stand in rows."""

    place_N: Numbers
    """The place of each token in the rows, read one behind the other; shared tokens have the same."""
    token_RW: Numbers
    """The token at each place; 0 at padding, which nothing reads."""
    position_RW: Numbers
    """Its position in its text."""
    segment_RW: Numbers
    """Which text it is of, PREFIX, or PADDING."""

    @property
    def fill(self) -> float:
        """Return the share of places that hold a token."""
        return float((self.segment_RW != PADDING).mean())


def lay_out(lengths: Sequence[int] | Numbers, groups: Sequence[Group], width: int) -> Layout:
    """Lay texts of these lengths into rows of a width that none exceeds, best fit first.

    A group starts a row of its own. The first texts are the longest, so a row's last places go to short ones.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    row_of, offset_of, shared_of = (np.zeros(len(lengths), dtype=np.int64) for _ in range(3))
    rows = 0
    for group in groups:
        filled = BestFitRows(width - group.shared)
        for text in sorted(group.texts.tolist(), key=lambda text: -lengths[text]):
            place = filled.place(int(lengths[text]) - group.shared)
            assert place is not None  # as many rows as it takes
            row_of[text], offset_of[text] = rows + place[0], group.shared + place[1]
            shared_of[text] = group.shared
        rows += filled.count
    starts = np.cumsum(lengths) - lengths
    text_N = np.repeat(np.arange(len(lengths)), lengths)
    step_N = np.arange(int(lengths.sum())) - starts[text_N]
    in_prefix_N = step_N < shared_of[text_N]
    within_N = np.where(in_prefix_N, step_N, offset_of[text_N] + step_N - shared_of[text_N])
    place_N = row_of[text_N] * width + within_N
    flat = np.zeros((3, rows * width), dtype=np.int64)
    flat[2] = PADDING
    flat[:, place_N] = np.stack([np.arange(len(place_N)), step_N, np.where(in_prefix_N, PREFIX, text_N)])
    token_RW, position_RW, segment_RW = flat.reshape(3, rows, width)
    return Layout(place_N, token_RW, position_RW, segment_RW)


def shared_beginning(ids_N: Numbers, lengths: Numbers) -> int:
    """Return how many tokens all texts begin with alike, at least one of each left over."""
    most = int(lengths.min()) - 1
    return len(common([ids_N[start : start + most].tolist() for start in np.cumsum(lengths) - lengths]))
