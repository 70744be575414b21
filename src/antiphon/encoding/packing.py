"""Which texts run together: batches under a token budget, rows packed by best fit. No tensors.

A batch is rows of one width; a row holds whole texts side by side. T tokens.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

SHORTEST_ROW = 64
"""Texts shorter than this share a row: matrix products of a few rows are slow."""
ALONE = 1024
"""A text from this many tokens on has a row and a batch of its own: no mask of T x T, no one to pad to."""


@dataclass(frozen=True)
class Placed:
    """A text's place in a batch."""

    text: int
    row: int
    start: int
    length: int


@dataclass
class Batch:
    """Texts that run in one forward pass, and the width of its rows."""

    width: int
    rows: int = 0
    placed: list[Placed] = field(default_factory=list)

    @property
    def alone(self) -> bool:
        """Whether there is one text only, which then needs no mask."""
        return len(self.placed) == 1

    @property
    def texts(self) -> list[int]:
        """The texts, in the order of their places."""
        return [place.text for place in self.placed]

    def flat(self) -> Batch:
        """Return the same texts end to end in one row."""
        starts = accumulate((place.length for place in self.placed), initial=0)
        placed = [replace(place, row=0, start=start) for place, start in zip(self.placed, starts, strict=False)]
        return Batch(sum(place.length for place in self.placed), 1, placed)

    def renumber(self, numbers: Sequence[int]) -> None:
        """Give the texts other numbers: text `n` becomes `numbers[n]`."""
        self.placed = [replace(place, text=numbers[place.text]) for place in self.placed]


def batches(lengths: Sequence[int], budget: int) -> Iterator[Batch]:
    """Yield the batches of texts with these numbers of tokens, the longest first.

    `rows x width` of a batch is at most `budget`, except for a single text that is longer.
    """
    batch: Batch | None = None
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        length = lengths[text]
        if batch is not None and not _place(batch, room, text, length, budget):
            yield batch
            batch = None
        if batch is None:
            batch, room = Batch(_width(length, budget)), []
            _place(batch, room, text, length, budget)
        if length >= ALONE:
            yield batch
            batch = None
    if batch is not None:
        yield batch


def _width(longest: int, budget: int) -> int:
    """Return the width of rows whose longest text this is: a whole number of such texts."""
    return longest * max(1, min(-(-SHORTEST_ROW // longest), budget // longest))


def _place(batch: Batch, room: list[tuple[int, int]], text: int, length: int, budget: int) -> bool:
    """Put a text into the fullest row that it fits in, or a new one; return whether there was a place."""
    found = bisect_left(room, (length, 0))
    if found < len(room):
        left, row = room.pop(found)
    elif not batch.rows or (batch.rows + 1) * batch.width <= budget:
        left, row = batch.width, batch.rows
        batch.rows += 1
    else:
        return False
    batch.placed.append(Placed(text, row, batch.width - left, length))
    insort(room, (left - length, row))
    return True
