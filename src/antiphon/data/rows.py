"""Rows of tables in files: JSON lines, CSV, TSV and Parquet, as a stream of mappings, each with its place.

What is wrong in a file is told with file and line. Which fields mean what is the business of sources.py (texts) and
pairs (training rows).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from antiphon.errors import DataError, first_line

PARQUET = ".parquet"
_PEEK = 8192  # bytes in which a file shows whether it is text

Choose = Callable[[Sequence[str], str], Sequence[str]]
"""Told the fields there are and where they stand, once, before the first row; returns those that are wanted."""


@dataclass(frozen=True)
class Row:
    """One row, its number counted from 1, and its place as messages name it."""

    number: int
    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Stream:
    """Where lines come from, as messages name it."""

    name: str
    raw: Iterable[bytes]

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield every line, counted from 1, with its ending; the bytes of a byte-order mark are none of the text."""
        for number, line in enumerate(self.raw, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                refuse(
                    f"{self.name}, line {number}: byte {error.start + 1} is 0x{line[error.start]:02x}, which is not "
                    "UTF-8; convert the file to UTF-8 first."
                )


def read_rows(path: Path, choose: Choose) -> Iterator[Row]:
    """Yield the rows of a file whose ending says of which kind it is (see ENDINGS).

    Raises DataError for a file that is missing, binary or of another kind, and for a line that cannot be read.
    """
    ending = path.suffix.lower()
    check_file(path, ENDINGS)
    if ending == PARQUET:
        return _parquet(path, choose)
    return chain.from_iterable(_TABLES[ending](stream, choose) for stream in text_stream(path))


def text_stream(path: Path) -> Iterator[Stream]:
    """Yield the one stream of a file of text, open for as long as it is read."""
    try:
        with path.open("rb") as file:
            head = file.read(_PEEK)
            if b"\0" in head:
                at = head.index(b"\0") + 1
                refuse(
                    f"{path} is a binary file (byte {at} is 0x00), not {path.suffix.lower()} text; name a file of text."
                )
            file.seek(0)
            yield Stream(str(path), file)
    except OSError as error:
        refuse(f"{path} cannot be read ({error.strerror or error}); check that you may read it.")


def jsonl(stream: Stream, choose: Choose) -> Iterator[Row]:
    """Yield one row for each line, a JSON object."""
    for number, line in stream.lines():
        where = f"{stream.name}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            refuse(f"{where} is not JSON ({error}): {line.strip()!r:.80}; write one JSON object a line.")
        if not isinstance(values, dict):
            refuse(f"{where} is not a JSON object: {line.strip()!r:.80}; write one JSON object a line.")
        if number == 1:
            choose(list(values), where)
        yield Row(number, where, values)


def check_file(path: Path, endings: Iterable[str], *, also: str = "") -> None:
    """Raise a DataError unless there is a file of a known kind; `also` names what else the user could take."""
    if path.is_dir():
        refuse(f"{path} is a folder; name a file in it, such as {path / 'texts.jsonl'}.")
    if not path.exists():
        refuse(f"There is no file {path}; name an existing one{also}.")
    if path.suffix.lower() not in endings:
        refuse(
            f"{path} ends in {path.suffix.lower()!r}, which is no known kind of source; rename or convert it to one of "
            f"{', '.join(endings)}."
        )


def refuse(message: str) -> NoReturn:
    """Raise a DataError that hides what led to it."""
    raise DataError(message) from None


def _separated(stream: Stream, choose: Choose, dialect: type[csv.Dialect]) -> Iterator[Row]:
    reader = csv.reader((line for _, line in stream.lines()), dialect, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        choose(header, f"{stream.name}, line 1 (the header)")
        for number, row in enumerate(reader, start=1):
            where = f"{stream.name}, line {reader.line_num}"
            if len(row) != len(header):
                refuse(
                    f"{where} has {len(row)} columns and the header has {len(header)}; mend the row, and put quotes "
                    "around a text that holds the separator."
                )
            yield Row(number, where, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        refuse(f"{stream.name}, line {reader.line_num} cannot be read ({error}); mend the quotes or use JSON lines.")


def _csv(stream: Stream, choose: Choose) -> Iterator[Row]:
    return _separated(stream, choose, csv.excel)


def _tsv(stream: Stream, choose: Choose) -> Iterator[Row]:
    return _separated(stream, choose, csv.excel_tab)


def _parquet(path: Path, choose: Choose) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = choose(file.schema_arrow.names, str(path))
            batches = file.iter_batches(batch_size=1024, columns=list(wanted))
            for number, values in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), start=1):
                yield Row(number, f"{path}, row {number}", values)
    except (pa.ArrowException, OSError) as error:
        refuse(f"{path} cannot be read as Parquet ({first_line(error)}); write it anew or name another file.")


_TABLES: Mapping[str, Callable[[Stream, Choose], Iterator[Row]]] = {
    ".jsonl": jsonl,
    ".json-lines": jsonl,
    ".ndjson": jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
}
ENDINGS = (*_TABLES, PARQUET)
