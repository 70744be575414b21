"""Texts into batches and vectors, some at a time: the same texts always fall into the same batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from antiphon.corpus.index import Vectors
from antiphon.data.text_columns import Record
from antiphon.encoding import Encoder
from antiphon.model.unit_vectors import unit

WINDOW = 8
"""Batches that are sorted by length together: progress is told as often."""
BATCH_TOKENS = 4096
"""Tokens of a forward pass: fixed, since a run that goes on must pack as the one before it did, to the same bytes."""

Item = TypeVar("Item")


def chunks_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last of what is left."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def windows(encoder: Encoder, records: Sequence[Record], *, side: str, batch_size: int) -> Iterator[Vectors]:
    """Yield the unit vectors of some batches at a time."""
    verb = encoder.encode_document if side == "document" else encoder.encode_query
    for window in chunks_of(records, batch_size * WINDOW):
        vectors = verb([record.text for record in window])
        yield unit(vectors, [record.id for record in window])
