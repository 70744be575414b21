"""Rows of tables: JSON lines and arrays, CSV, TSV, Parquet and saved data sets, each row with its place.

There is one reader a format, for training pairs, evaluation, overlap, mining and embedding alike. A table knows its
columns by all of its rows before the first is read. What is wrong in a file is told with file and line. Which columns
mean what is the business of who reads: sources.py (texts), pairs (training rows), beir.py and evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from antiphon.data.byte_streams import PACKED, Stream, check_file, kind_of, opened, refuse
from antiphon.data.delimited import cell, records
from antiphon.data.skipped import Skipped
from antiphon.errors import first_line

PARQUET = ".parquet"


@dataclass(frozen=True)
class Row:
    """One row, its number counted from 1, and its place as messages name it."""

    number: int
    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of a file or folder, which may be read more than once."""

    where: str
    """Where the columns stand, as messages name it."""
    columns: tuple[str, ...]
    """Every column that any row has, in the order in which they come."""
    read: Callable[[Sequence[str], Skipped], Iterable[Row]]

    def rows(self, columns: Sequence[str] | None = None, skipped: Skipped | None = None) -> Iterator[Row]:
        """Yield the rows with at least the columns asked for, where they have them; DataError for a bad row."""
        yield from self.read(self.columns if columns is None else columns, skipped or Skipped())


def open_table(path: Path) -> Table:
    """Return the table of a file whose ending says of which kind it is (see ENDINGS).

    Raises DataError for a file that is missing, binary or of another kind, for JSON that cannot be read, and for two
    columns of one name.
    """
    check_file(path, ENDINGS)
    return only_once(_TABLES[kind_of(path)](path))


def only_once(table: Table) -> Table:
    """Return the table; DataError where two of its columns have one name."""
    twice = [name for name in table.columns if name and table.columns.count(name) > 1]
    if twice:
        refuse(f"{table.where} has more than one column {twice[0]!r}; rename one of them.")
    return table


def is_table_name(path: str | Path) -> bool:
    """Return whether the ending of a path is that of a table."""
    kind = kind_of(Path(path))
    return kind in ENDINGS and (kind != PARQUET or Path(path).suffix.lower() not in PACKED)


def json_rows(stream: Stream, skipped: Skipped) -> Iterator[Row]:
    """Yield one row for each line, a JSON object; blank lines between rows are counted as skipped."""
    blank: list[str] = []
    number = 0
    for line_number, line in stream.lines():
        where = f"{stream.name}, line {line_number}"
        if not line.strip():
            blank.append(where)
            continue
        if blank:
            skipped.add("blank lines between rows", blank[0], "remove the line", number=len(blank))
            blank.clear()
        number += 1
        yield Row(number, where, _object(line, where))


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        refuse(f"{where} is not JSON ({error}): {line.strip()!r:.80}; write one JSON object a line.")
    if not isinstance(values, dict):
        refuse(f"{where} is not a JSON object: {line.strip()!r:.80}; write one JSON object a line.")
    return values


def _jsonl(path: Path) -> Table:
    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        with opened(path) as stream:
            yield from json_rows(stream, skipped)

    return table_of_objects(str(path), read)


def _json(path: Path) -> Table:
    """An array of objects; a .json file that begins otherwise holds JSON lines."""
    with opened(path) as stream:
        _, line = next((found for found in stream.lines() if found[1].strip()), (0, ""))
    if not line.lstrip().startswith("["):
        return _jsonl(path)
    return table_of_objects(str(path), lambda columns, skipped: _array(path))


def _array(path: Path) -> list[Row]:
    """Return the rows of an array: of many such files one alone is in memory."""
    with opened(path) as stream:
        text = stream.text()
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        refuse(f"{path} is not JSON ({error}); write an array of objects, or one object a line.")
    rows = [Row(number, f"{path}, row {number}", item) for number, item in enumerate(items, start=1)]
    for row in rows:
        if not isinstance(row.values, dict):
            refuse(f"{row.where} is not a JSON object: {row.values!r:.80}; write an array of objects.")
    return rows


def table_of_objects(name: str, read: Callable[[Sequence[str], Skipped], Iterable[Row]]) -> Table:
    """Return the table of rows that each bring columns of their own: those of all of them are its columns."""
    columns: dict[str, None] = {}
    first, alike = None, True
    for row in read((), Skipped()):
        first = first or row
        alike = alike and len(row.values) == len(first.values)
        columns.update(dict.fromkeys(row.values))
    alike = alike and first is not None and len(columns) == len(first.values)
    return Table(first.where if alike and first is not None else name, tuple(columns), read)


def _separated(path: Path, separator: str) -> Table:
    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        wanted = set(columns)
        with opened(path) as stream:
            found = records(stream, separator, skipped)
            _, header = next(found, ("", []))
            for number, (where, fields) in enumerate(found, start=1):
                named = zip(header, fields, strict=True)
                yield Row(number, where, {name: cell(text, where, name) for name, text in named if name in wanted})

    with opened(path) as stream:
        where, header = next(records(stream, separator, Skipped()), (f"{path}, line 1", []))
    return Table(f"{where} (the header)", tuple(header), read)


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    @contextmanager
    def file_of() -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(path) as file:
                yield file
        except (pa.ArrowException, OSError, ValueError) as error:
            refuse(f"{path} cannot be read as Parquet ({first_line(error)}); write it anew or name another file.")

    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        with file_of() as file:
            wanted = [name for name in columns if name in names]
            batches = file.iter_batches(batch_size=1024, columns=wanted)
            for number, values in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), start=1):
                yield Row(number, f"{path}, row {number}", values)

    with file_of() as file:
        names = tuple(file.schema_arrow.names)
    return Table(str(path), names, read)


_TABLES: Mapping[str, Callable[[Path], Table]] = {
    ".jsonl": _jsonl,
    ".json-lines": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": lambda path: _separated(path, ","),
    ".tsv": lambda path: _separated(path, "\t"),
    PARQUET: _parquet,
}
ENDINGS = tuple(_TABLES)
