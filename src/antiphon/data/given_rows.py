"""Rows that are in memory already: strings, dicts, data sets, and frames of pandas, polars and Arrow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from antiphon.data.byte_streams import refuse
from antiphon.data.rows import Row, Table, only_once, table_of_objects
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import table_of
from antiphon.errors import first_line

NAME = "the given texts"
_ROWS_AT_ONCE = 1024
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
"""What Arrow calls an index of pandas that has no name: numbers of rows, no column of the user's."""


@runtime_checkable
class ArrowFrame(Protocol):
    """A frame that others read by Arrow's C interface: of pandas (2.2 and later), polars, pyarrow and their like."""

    columns: Any

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the frame's rows as Arrow's stream."""
        ...


GivenRows = Iterable[str | Mapping[str, Any]] | ArrowFrame
"""Texts, or rows as dicts, in any iterable; a `datasets.Dataset`; a frame of pandas, polars or Arrow."""


def table_in_memory(given: GivenRows) -> Table | None:
    """Return what was given as a table, or None where it is an iterator, which can be gone through only once.

    A string is a row with the one column `text`. Raises DataError for a dict, and for items that are neither.
    """
    import datasets

    if isinstance(given, Mapping | bytes):
        refuse(f"A {type(given).__name__} is no list of texts; give a list of strings or dicts, or one of its splits.")
    if isinstance(given, datasets.Dataset):
        return only_once(table_of(given, NAME))
    if isinstance(given, ArrowFrame):
        return only_once(_of_frame(given))
    if isinstance(given, Iterator):
        return None
    return table_of_objects(NAME, lambda columns, skipped: rows_given(given))


def rows_given(items: Iterable[Any]) -> Iterator[Row]:
    """Yield a row for each string or dict."""
    for number, item in enumerate(items, start=1):
        where = f"{NAME}, item {number}"
        if not isinstance(item, str | Mapping):
            refuse(f"{where} is {item!r:.80}, neither a string nor a dict; give texts, or rows as dicts.")
        yield Row(number, where, {"text": item} if isinstance(item, str) else item)


def _of_frame(frame: ArrowFrame) -> Table:
    import pyarrow as pa

    try:
        table = pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        refuse(f"The frame cannot be read as an Arrow table ({first_line(error):.200}); make its columns plain.")
    names = tuple(name for name in table.column_names if not _UNNAMED_INDEX.fullmatch(name))

    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        chosen = table.select([name for name in columns if name in names])
        number = 0
        for batch in chosen.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for values in batch.to_pylist():
                number += 1
                yield Row(number, f"{NAME}, row {number}", values)

    return Table(NAME, names, read)
