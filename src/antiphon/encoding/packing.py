"""Which texts stand in which row, by best fit: batches under a token budget, for the Encoder. No tensors.

A batch is rows of one width; a row holds whole texts side by side. `layout.py` lays a training batch out with the same
rows. T tokens.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

SHORTEST_ROW = 64
"""Texts shorter than this share a row: matrix products of a few rows are slow."""
ALONE = 1024
"""A text from this many tokens on has a row and a batch of its own: no mask of T x T, no one to pad to."""


class BestFitRows:
    """Rows of one width that are filled by best fit; at most `most` of them, None for as many as it takes."""

    def __init__(self, width: int, *, most: int | None = None) -> None:
        self.width = width
        self.most = most
        self.count = 0
        self._free: list[tuple[int, int]] = []  # (tokens left, row), sorted

    def place(self, length: int) -> tuple[int, int] | None:
        """Return the row and the start in it of so many tokens: the fullest row with room, else a new one, if any."""
        found = bisect_left(self._free, (length, 0))
        if found < len(self._free):
            left, row = self._free.pop(found)
        elif self.most is None or self.count < self.most:
            left, row, self.count = self.width, self.count, self.count + 1
        else:
            return None
        insort(self._free, (left - length, row))
        return row, self.width - left


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

    def renumber(self, numbers: Sequence[int]) -> None:
        """Give the texts other numbers: text `n` becomes `numbers[n]`."""
        self.placed = [replace(place, text=numbers[place.text]) for place in self.placed]


def batches(lengths: Sequence[int], budget: int) -> Iterator[Batch]:
    """Yield the batches of texts with these numbers of tokens, the longest first.

    `rows x width` of a batch is at most `budget`, except for a single text that is longer.
    """
    rows, placed = BestFitRows(0, most=0), list[Placed]()
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        length = lengths[text]
        place = rows.place(length) if not placed or placed[0].length < ALONE else None
        if place is None:
            if placed:
                yield Batch(rows.width, rows.count, placed)
            width = _width(length, budget)
            rows, placed = BestFitRows(width, most=max(1, budget // width)), []
            place = rows.place(length)
            assert place is not None  # rows are at least as wide as their first text
        placed.append(Placed(text, *place, length))
    if placed:
        yield Batch(rows.width, rows.count, placed)


def end_to_end(lengths: Sequence[int], budget: int) -> Iterator[Batch]:
    """Yield batches of one row each, in which texts with these numbers of tokens stand end to end, the longest first.

    A row has at most `budget` tokens, except for a single text that is longer. No token is seen from another text, so
    which texts stand together is all the same.
    """
    rows, made = BestFitRows(budget), list[Batch]()
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        length = lengths[text]
        if length > budget:
            yield Batch(length, 1, [Placed(text, 0, 0, length)])
            continue
        place = rows.place(length)
        assert place is not None  # as many rows as it takes
        number, start = place
        if number == len(made):
            made.append(Batch(0, 1))
        made[number].placed.append(Placed(text, 0, start, length))
        made[number].width = start + length
    yield from made


def _width(longest: int, budget: int) -> int:
    """Return the width of rows whose longest text this is: a whole number of such texts."""
    return longest * max(1, min(-(-SHORTEST_ROW // longest), budget // longest))
