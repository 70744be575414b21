"""Texts from files: JSON lines, CSV, TSV, Parquet, plain text, standard input, and the docstrings of this Python.

A source is read as a stream, so its size does not matter. What is wrong in it is told with file and line; nothing is
repaired in silence. What becomes of the texts is the business of the verbs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from antiphon.data.docstrings import Docstring, harvest, standard_library
from antiphon.data.rows import ENDINGS, Choose, Row, Stream, check_file, jsonl, read_rows, refuse, text_stream

STDIN = "-"
DOCSTRINGS = "docstrings"
PLAIN = ".txt"
TEXT_FIELDS = ("text", "body", "content", "sentence", "passage")
ID_FIELDS = ("id", "_id")


@dataclass(frozen=True)
class Record:
    """One text of a source and its name."""

    id: str
    text: str


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
        stream = Stream("standard input", sys.stdin.buffer)
        lines = _lines(stream, field) if field is None else _records(lambda choose: jsonl(stream, choose), field)
        return _not_empty(lines, stream.name)
    path = Path(source)
    check_file(path, (*ENDINGS[:-1], PLAIN, ENDINGS[-1]), also=f", '{DOCSTRINGS}', or '-' for standard input")
    if path.suffix.lower() == PLAIN:
        return _not_empty(chain.from_iterable(_lines(stream, field) for stream in text_stream(path)), name)
    return _not_empty(_records(lambda choose: read_rows(path, choose), field), name)


def count(source: str | Path, *, field: str | None = None) -> int | None:
    """Read a source to its end and return how many records it has; None for standard input, which is read only once.

    Raises what `read` raises, so a bad line is told before any work is done.
    """
    return None if str(source) == STDIN else sum(1 for _ in read(source, field=field))


def _not_empty(records: Iterator[Record], name: str) -> Iterator[Record]:
    first = next(records, None)
    if first is None:
        refuse(f"{name} is empty: there is no text in it to read.")
    yield first
    yield from records


def _lines(stream: Stream, field: str | None) -> Iterator[Record]:
    if field is not None:
        refuse(f"{stream.name} is plain text and has no field {field!r}; leave the field out.")
    for number, line in stream.lines():
        yield _record(str(number), line.rstrip("\r\n"), f"{stream.name}, line {number}")


def _records(rows: Callable[[Choose], Iterator[Row]], asked: str | None) -> Iterator[Record]:
    field = asked or ""

    def choose(names: Sequence[str], where: str) -> Sequence[str]:
        nonlocal field
        field = _text_field(names, asked, where)
        return [name for name in (field, *ID_FIELDS) if name in names]

    for row in rows(choose):
        yield _from_row(row, field)


@cache
def _library() -> tuple[Docstring, ...]:
    """Parse the standard library once: it takes seconds, and a source may be read twice."""
    return tuple(harvest(standard_library()))


def _docstrings(field: str | None) -> Iterator[Record]:
    if field is not None:
        refuse(f"'{DOCSTRINGS}' has no field {field!r}; leave the field out.")
    return (Record(docstring.name, docstring.text) for docstring in _library())


def _text_field(names: Sequence[str], asked: str | None, where: str) -> str:
    """Return the field that holds the text, from the names that there are."""
    found = [name for name in ((asked,) if asked is not None else TEXT_FIELDS) if name in names]
    if not found:
        wanted = repr(asked) if asked is not None else " or ".join(TEXT_FIELDS)
        refuse(f"{where} has no field {wanted}, only {', '.join(map(repr, names)) or 'none'}; name one by --field.")
    if list(names).count(found[0]) > 1:
        refuse(f"{where} has more than one column {found[0]!r}; rename one of them.")
    return found[0]


def _from_row(row: Row, field: str) -> Record:
    if field not in row.values:
        names = ", ".join(map(repr, row.values)) or "none"
        refuse(f"{row.where} has no field {field!r}, only {names}; add it to the row.")
    for name in ID_FIELDS:
        if name != field and name in row.values:
            identity = row.values[name]
            if isinstance(identity, bool) or not isinstance(identity, str | int):
                refuse(
                    f"{row.where}: {name!r} is {identity!r:.80}, which is no id; make it a string or a whole number."
                )
            return _record(str(identity), row.values[field], row.where)
    return _record(str(row.number), row.values[field], row.where)


def _record(identity: str, text: object, where: str) -> Record:
    if not isinstance(text, str):
        refuse(f"{where}: the text is {text!r:.80}, which is no string; make it one or remove the row.")
    if not text.strip():
        refuse(f"{where} has no text: it is {text!r:.80}; remove the row.")
    try:
        (identity + text).encode()
    except UnicodeEncodeError:
        refuse(f"{where} holds half of a surrogate pair, which is no character: {text!r:.80}; mend the escape.")
    return Record(identity, text)
