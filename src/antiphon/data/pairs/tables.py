"""The one shape of training data: a `datasets.Dataset` with anchor, positive and negative_1..n.

Rows with fewer negatives than others hold '' for the missing ones, and `label` says which are real, so that a loss can
mask them: nothing is dropped and nothing repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from antiphon.data.pairs.columns import Pair
from antiphon.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

ANCHOR, POSITIVE, LABEL = "anchor", "positive", "label"
_NEGATIVE = "negative_"
_CHUNK = 10_000  # rows in a piece of an Arrow table: their texts must stay below 2 GB


def negative_columns(names: Iterable[str]) -> list[str]:
    """Return the columns that hold negatives, in order.

    Example:
        >>> from antiphon.pairs import negative_columns
        >>> negative_columns(["anchor", "positive", "negative_1", "negative_2"])
        ['negative_1', 'negative_2']
    """
    return [name for name in names if name.startswith(_NEGATIVE)]


def to_dataset(pairs: Iterable[Pair], name: str = "the pairs", *, negatives: int | None = None) -> Dataset:
    """Return the pairs as a data set in memory, with at most `negatives` negatives a row.

    The columns are anchor, positive and negative_1..n, n the most that any row has. Where n is at least 1 and rows
    differ, '' stands for a missing negative and the column label holds n whole numbers, 1 for a real one, 0 for ''.

    Raises DataError, with the `name`, where there are no pairs.

    Example:
        >>> from antiphon.pairs import Pair, to_dataset
        >>> to_dataset([Pair("sort a list", "Return a sorted list.", ("Open a file.",))]).column_names
        ['anchor', 'positive', 'negative_1']
    """
    import pyarrow as pa
    from datasets import Dataset

    chunks: list[list[Pair]] = []
    iterator = iter(pairs)
    while chunk := list(islice(iterator, _CHUNK)):
        chunks.append(chunk)
    if not chunks:
        raise DataError(f"{name} is empty: there is no pair in it to train on.")
    counts = {min(len(pair.negatives), negatives or len(pair.negatives)) for chunk in chunks for pair in chunk}
    if negatives == 0:
        counts = {0}
    most, ragged = max(counts), len(counts) > 1
    tables = []
    while chunks:
        tables.append(pa.table(_columns(chunks.pop(0), most, ragged=ragged)))
    return Dataset(pa.concat_tables(tables))


def _columns(pairs: Sequence[Pair], most: int, *, ragged: bool) -> dict[str, list[str] | list[list[int]]]:
    columns: dict[str, list[str] | list[list[int]]] = {
        ANCHOR: [pair.anchor for pair in pairs],
        POSITIVE: [pair.positive for pair in pairs],
    }
    for place in range(most):
        columns[f"{_NEGATIVE}{place + 1}"] = [
            pair.negatives[place] if place < len(pair.negatives) else "" for pair in pairs
        ]
    if ragged:
        columns[LABEL] = [[int(place < len(pair.negatives)) for place in range(most)] for pair in pairs]
    return columns
