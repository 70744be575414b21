"""Where the pooled tokens of a batch are: the one file that knows the four ways in which a forward pass counts.

R rows, W their width, K kept columns of a row, P tokens of the shared prefix, S = P + R x K states.

    position  of a text, from the start of its sequence    prefix 0 1 2 | own tokens 3 4 5 6    B's pooled: 5 6
    column    of a row, in which texts follow each other   row 0: [A A A A A][B B B B]          B's are 7 8
    kept      of a row, where the last layer runs only     row 0: [A4] [B7 B8] -> 0 1 2         B's are 1 2
              at the pooled columns
    state     of all, as they come out of the decoder      prefix 0 1 2 | row 0: 3 4 5 | row 1  B's are 4 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.encoding.packing import Batch


@dataclass(frozen=True)
class PooledPositions:
    """The pooled tokens of a batch's texts, in each of the four counts."""

    batch: Batch
    prefix: int
    """P; positions below it lie in the prefix, which every text shares."""
    positions: list[list[int]]
    """By text of the batch."""
    columns: list[list[int]]
    """By row, in the order of its texts."""
    kept: list[range]
    """By text of the batch: its places in its row's `columns`."""

    @classmethod
    def of(cls, batch: Batch, positions: Sequence[Sequence[int]], prefix: int) -> PooledPositions:
        """Return where the pooled positions of each of the batch's texts are."""
        columns: list[list[int]] = [[] for _ in range(batch.rows)]
        kept = []
        for place, own in zip(batch.placed, positions, strict=True):
            row = columns[place.row]
            first = len(row)
            row += [place.start + position - prefix for position in own if position >= prefix]
            kept.append(range(first, len(row)))
        return cls(batch, prefix, [list(own) for own in positions], columns, kept)

    @property
    def most(self) -> int:
        """The most pooled columns of a row: K, where the last layer is pruned."""
        return max(map(len, self.columns))

    def kept_columns(self) -> list[list[int]]:
        """Return the columns (R, K) at which a pruned last layer runs.

        A row with fewer is filled up in front: so the last of K queries stand no later than the last K keys, as causal
        attention takes it.
        """
        return [[0] * (self.most - len(row)) + row for row in self.columns]

    def states(self, *, pruned: bool) -> list[list[int]]:
        """Return the pooled states of each text, by their places among all S (with W in K's place if not pruned)."""
        width = self.most if pruned else self.batch.width
        found = []
        for place, own, kept in zip(self.batch.placed, self.positions, self.kept, strict=True):
            row = self.columns[place.row]
            begin = self.prefix + place.row * width
            filled = width - len(row)  # of a pruned row, in front
            of_prefix = [position for position in own if position < self.prefix]
            found.append(of_prefix + [begin + (filled + at if pruned else row[at]) for at in kept])
        return found
