"""Texts laid into rows without padding between them: where each token goes, at which position, and what it may see.

Texts that begin with the same tokens can share them: the beginning stands once in a row and every text of the row sees
it. Under causal attention nothing in it depends on what follows, so states and gradients are those of a beginning of
each text's own. Shapes: N tokens of all texts, one text behind the other, R rows, W width of a row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Numbers = npt.NDArray[np.int64]
PREFIX, NOBODY = 0, -1
"""Segments: the shared beginning of a row, and what is padding. Texts are 1, 2, ..."""


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
    """Which text of the row it is of, PREFIX, or NOBODY."""

    @property
    def fill(self) -> float:
        """Return the share of places that hold a token."""
        return float((self.segment_RW != NOBODY).mean())


def lay_out(lengths: Sequence[int] | Numbers, groups: Sequence[Group], width: int) -> Layout:
    """Lay texts of these lengths into rows of a width that none exceeds, best fit first.

    A group starts a row of its own. The first texts are the longest, so a row's last places go to short ones.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    row_of, slot_of, offset_of = (np.zeros(len(lengths), dtype=np.int64) for _ in range(3))
    shared_of = np.zeros(len(lengths), dtype=np.int64)
    rows = 0
    for group in groups:
        free: list[tuple[int, int]] = []  # (free places, row), sorted
        slots: dict[int, int] = {}
        for text in sorted(group.texts.tolist(), key=lambda text: -lengths[text]):
            own = int(lengths[text]) - group.shared
            best = bisect_left(free, (own, -1))
            if best == len(free):
                space, row, rows = width - group.shared, rows, rows + 1
            else:
                space, row = free.pop(best)
            slots[row] = slots.get(row, 0) + 1
            row_of[text], slot_of[text], offset_of[text] = row, slots[row], width - space
            shared_of[text] = group.shared
            left = (space - own, row)
            free.insert(bisect_left(free, left), left)
    starts = np.cumsum(lengths) - lengths
    text_N = np.repeat(np.arange(len(lengths)), lengths)
    step_N = np.arange(int(lengths.sum())) - starts[text_N]
    in_prefix_N = step_N < shared_of[text_N]
    within_N = np.where(in_prefix_N, step_N, offset_of[text_N] + step_N - shared_of[text_N])
    place_N = row_of[text_N] * width + within_N
    flat = np.zeros((3, rows * width), dtype=np.int64)
    flat[2] = NOBODY
    flat[:, place_N] = np.stack([np.arange(len(place_N)), step_N, np.where(in_prefix_N, PREFIX, slot_of[text_N])])
    token_RW, position_RW, segment_RW = flat.reshape(3, rows, width)
    return Layout(place_N, token_RW, position_RW, segment_RW)


def shared_beginning(ids_N: Numbers, lengths: Numbers) -> int:
    """Return how many tokens all texts begin with alike, at least one of each left over."""
    most = int(lengths.min()) - 1
    starts = np.cumsum(lengths) - lengths
    first = ids_N[starts[:, None] + np.arange(most)]
    different = np.flatnonzero((first != first[0]).any(axis=0))
    return int(different[0]) if len(different) else most


def visible(layout: Layout, device: torch.device, *, causal: bool, window: int | None = None) -> torch.Tensor:
    """Return (R, 1, W, W): whether a place sees another; a place of padding sees padding, so no row of it is empty.

    `window` is how far back a sliding layer looks, as transformers counts it: under causal attention fewer than so many
    tokens, else at most so many to either side.
    """
    segment_RW = torch.from_numpy(layout.segment_RW).to(device)
    sees_RWW = segment_RW[:, :, None] == segment_RW[:, None, :]
    if causal:
        sees_RWW = sees_RWW | (segment_RW == PREFIX)[:, None, :]
        sees_RWW &= torch.ones(sees_RWW.shape[1:], dtype=torch.bool, device=device).tril()
    if window is not None:
        position_RW = torch.from_numpy(layout.position_RW).to(device)
        back_RWW = position_RW[:, :, None] - position_RW[:, None, :]
        sees_RWW &= back_RWW < window if causal else back_RWW.abs() <= window
    return sees_RWW[:, None]
