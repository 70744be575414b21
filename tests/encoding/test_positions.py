"""The four ways in which a forward pass counts, on the drawing of encoding/positions.py and against a naive walk."""

from __future__ import annotations

import random

from antiphon.encoding.packing import Batch, Placed
from antiphon.encoding.positions import PooledPositions


def test_the_drawing():
    batch = Batch(9, 1, [Placed(0, 0, 0, 5), Placed(1, 0, 5, 4)])
    pooled = PooledPositions.of(batch, [[7], [5, 6]], 3)
    assert pooled.columns == [[4, 7, 8]]
    assert pooled.kept == [range(1), range(1, 3)]
    assert pooled.kept_columns() == [[4, 7, 8]]
    assert pooled.states(pruned=True) == [[3], [4, 5]]
    assert pooled.states(pruned=False) == [[7], [10, 11]]


def test_states_are_those_of_the_pooled_tokens_whatever_is_pooled():
    random.seed(5)
    for _ in range(200):
        prefix, rows, placed = random.choice([0, 2]), random.randint(1, 3), []
        positions, width = [], 0
        for row in range(rows):
            start = 0
            for _ in range(random.randint(1, 3)):
                length = random.randint(1, 4)
                placed.append(Placed(len(placed), row, start, length))
                whole = range(prefix + length)
                positions.append(sorted(random.sample(whole, random.randint(1, len(whole)))))
                start += length
            width = max(width, start)
        pooled = PooledPositions.of(Batch(width, rows, placed), positions, prefix)
        # a state that says what it is of: the prefix's position, or the row and the column
        plain = [("prefix", n) for n in range(prefix)] + [
            (row, column) for row in range(rows) for column in range(width)
        ]
        kept = plain[:prefix]
        kept += [(row, at) for row, columns in enumerate(pooled.kept_columns()) for at in columns]
        wanted = [
            [("prefix", at) if at < prefix else (place.row, place.start + at - prefix) for at in own]
            for place, own in zip(placed, positions, strict=True)
        ]
        assert [[plain[state] for state in of] for of in pooled.states(pruned=False)] == wanted
        assert [[kept[state] for state in of] for of in pooled.states(pruned=True)] == wanted
