"""Texts from files: JSON lines, CSV, TSV, Parquet, plain text, standard input, and the docstrings of this Python.

A source is read as a stream, so its size does not matter. What is wrong in it is told with file and line; nothing is
repaired in silence. What becomes of the texts is the business of the verbs.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from antiphon.docstrings import Docstring, harvest, standard_library
from antiphon.errors import DataError, first_line

STDIN = "-"
DOCSTRINGS = "docstrings"
TEXT_FIELDS = ("text", "body", "content", "sentence", "passage")
ID_FIELDS = ("id", "_id")
_PEEK = 8192  # bytes in which a file shows whether it is text


@dataclass(frozen=True)
class Record:
    """One text of a source and its name."""

    id: str
    text: str


@dataclass(frozen=True)
class _Stream:
    """Where the lines come from, as messages name it, and which field holds the text."""

    name: str
    lines: Iterable[bytes]
    field: str | None

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield every line, counted from 1, with its ending; the bytes of a byte-order mark are none of the text."""
        for number, line in enumerate(self.lines, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                _refuse(
                    f"{self.name}, line {number}: byte {error.start + 1} is 0x{line[error.start]:02x}, which is not "
                    "UTF-8; convert the file to UTF-8 first."
                )


def read(source: str | Path, *, field: str | None = None) -> Iterator[Record]:
    """Yield the records of a source, in order.

    `source` is a path ending in .jsonl, .json-lines, .ndjson, .csv or .tsv (with a header), .parquet or .txt (a text a
    line), "-" for standard input, or "docstrings" for those of the standard library (id: the dotted name). Standard
    input is a text a line; where `field` is given its lines are JSON objects.

    The text is in `field`, or in the first of text, body, content, sentence, passage that the first record has. The id
    is that of the field `id` or `_id`, else the number of the row, counted from 1.

    Raises DataError for a source that is missing, empty, binary or of an unknown kind, at once or when the bad line is
    reached.
    """
    name = str(source)
    if name == DOCSTRINGS:
        return _docstrings(field)
    if name == STDIN:
        stream = _Stream("standard input", sys.stdin.buffer, field)
        return _not_empty(_lines(stream) if field is None else _jsonl(stream), stream.name)
    path = Path(source)
    ending = path.suffix.lower()
    _check_file(path, ending)
    if ending == ".parquet":
        return _not_empty(_parquet(path, field), name)
    return _not_empty(_text_file(path, ending, field), name)


def count(source: str | Path, *, field: str | None = None) -> int | None:
    """Read a source to its end and return how many records it has; None for standard input, which is read only once.

    Raises what `read` raises, so a bad line is told before any work is done.
    """
    return None if str(source) == STDIN else sum(1 for _ in read(source, field=field))


def _refuse(message: str) -> NoReturn:
    raise DataError(message) from None


def _check_file(path: Path, ending: str) -> None:
    if path.is_dir():
        _refuse(f"{path} is a folder; name a file in it, such as {path / 'texts.jsonl'}.")
    if not path.exists():
        _refuse(f"There is no file {path}; name an existing one, '{DOCSTRINGS}', or '-' for standard input.")
    if ending != ".parquet" and ending not in _READERS:
        known = ", ".join((*_READERS, ".parquet"))
        _refuse(f"{path} ends in {ending!r}, which is no known kind of source; rename or convert it to one of {known}.")


def _not_empty(records: Iterator[Record], name: str) -> Iterator[Record]:
    first = next(records, None)
    if first is None:
        _refuse(f"{name} is empty: there is no text in it to read.")
    yield first
    yield from records


def _text_file(path: Path, ending: str, field: str | None) -> Iterator[Record]:
    try:
        with path.open("rb") as file:
            head = file.read(_PEEK)
            if b"\0" in head:
                at = head.index(b"\0") + 1
                _refuse(f"{path} is a binary file (byte {at} is 0x00), not {ending} text; name a file of text.")
            file.seek(0)
            yield from _READERS[ending](_Stream(str(path), file, field))
    except OSError as error:
        _refuse(f"{path} cannot be read ({error.strerror or error}); check that you may read it.")


def _lines(stream: _Stream) -> Iterator[Record]:
    if stream.field is not None:
        _refuse(f"{stream.name} is plain text and has no field {stream.field!r}; leave the field out.")
    for number, line in stream.texts():
        yield _record(str(number), line.rstrip("\r\n"), f"{stream.name}, line {number}")


def _jsonl(stream: _Stream) -> Iterator[Record]:
    field = stream.field
    for number, line in stream.texts():
        where = f"{stream.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            _refuse(f"{where} is not JSON ({error}): {line.strip()!r:.80}; write one JSON object a line.")
        if not isinstance(row, dict):
            _refuse(f"{where} is not a JSON object: {line.strip()!r:.80}; write one JSON object a line.")
        if field is None:
            field = _text_field(list(row), None, where)
        yield _from_row(row, field, number, where)


def _separated(stream: _Stream, dialect: type[csv.Dialect]) -> Iterator[Record]:
    reader = csv.reader((line for _, line in stream.texts()), dialect, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        field = _text_field(header, stream.field, f"{stream.name}, line 1 (the header)")
        for number, row in enumerate(reader, start=1):
            where = f"{stream.name}, line {reader.line_num}"
            if len(row) != len(header):
                _refuse(
                    f"{where} has {len(row)} columns and the header has {len(header)}; mend the row, and put quotes "
                    "around a text that holds the separator."
                )
            yield _from_row(dict(zip(header, row, strict=True)), field, number, where)
    except csv.Error as error:
        _refuse(f"{stream.name}, line {reader.line_num} cannot be read ({error}); mend the quotes or use JSON lines.")


def _csv(stream: _Stream) -> Iterator[Record]:
    return _separated(stream, csv.excel)


def _tsv(stream: _Stream) -> Iterator[Record]:
    return _separated(stream, csv.excel_tab)


_READERS: Mapping[str, Callable[[_Stream], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".json-lines": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _lines,
}


def _parquet(path: Path, field: str | None) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            text_field = _text_field(names, field, str(path))
            wanted = [name for name in (text_field, *ID_FIELDS) if name in names]
            batches = file.iter_batches(batch_size=1024, columns=wanted)
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, row in enumerate(rows, start=1):
                yield _from_row(row, text_field, number, f"{path}, row {number}")
    except (pa.ArrowException, OSError) as error:
        _refuse(f"{path} cannot be read as Parquet ({first_line(error)}); write it anew or name another file.")


@cache
def _library() -> tuple[Docstring, ...]:
    """Parse the standard library once: it takes seconds, and a source may be read twice."""
    return tuple(harvest(standard_library()))


def _docstrings(field: str | None) -> Iterator[Record]:
    if field is not None:
        _refuse(f"'{DOCSTRINGS}' has no field {field!r}; leave the field out.")
    return (Record(docstring.name, docstring.text) for docstring in _library())


def _text_field(names: Sequence[str], asked: str | None, where: str) -> str:
    """Return the field that holds the text, from the names that there are."""
    found = [name for name in ((asked,) if asked is not None else TEXT_FIELDS) if name in names]
    if not found:
        wanted = repr(asked) if asked is not None else " or ".join(TEXT_FIELDS)
        _refuse(f"{where} has no field {wanted}, only {', '.join(map(repr, names)) or 'none'}; name one by --field.")
    if list(names).count(found[0]) > 1:
        _refuse(f"{where} has more than one column {found[0]!r}; rename one of them.")
    return found[0]


def _from_row(row: Mapping[str, Any], field: str, number: int, where: str) -> Record:
    if field not in row:
        _refuse(f"{where} has no field {field!r}, only {', '.join(map(repr, row)) or 'none'}; add it to the row.")
    for name in ID_FIELDS:
        if name != field and name in row:
            identity = row[name]
            if isinstance(identity, bool) or not isinstance(identity, str | int):
                _refuse(f"{where}: {name!r} is {identity!r:.80}, which is no id; make it a string or a whole number.")
            return _record(str(identity), row[field], where)
    return _record(str(number), row[field], where)


def _record(identity: str, text: object, where: str) -> Record:
    if not isinstance(text, str):
        _refuse(f"{where}: the text is {text!r:.80}, which is no string; make it one or remove the row.")
    if not text.strip():
        _refuse(f"{where} has no text: it is {text!r:.80}; remove the row.")
    try:
        (identity + text).encode()
    except UnicodeEncodeError:
        _refuse(f"{where} holds half of a surrogate pair, which is no character: {text!r:.80}; mend the escape.")
    return Record(identity, text)
