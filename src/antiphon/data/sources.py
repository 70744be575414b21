"""Texts from files: tables (see rows.py), plain text, standard input, and the docstrings of this Python.

A source is read as a stream, so its size does not matter. What is wrong in it is told with file and line; nothing is
repaired in silence. What becomes of the texts is the business of the verbs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from antiphon.data.beir import BeirFolder
from antiphon.data.byte_streams import Stream, check_file, kind_of, opened, refuse
from antiphon.data.cells import identity_of, listed, text_of, value_of
from antiphon.data.docstrings import Docstring, harvest, standard_library
from antiphon.data.rows import ENDINGS, Row, Table, json_rows, open_table
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import stored_table

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


def read(source: str | Path, *, field: str | None = None, skipped: Skipped | None = None) -> Iterator[Record]:
    """Yield the records of a source, in order.

    `source` is a table (.jsonl, .json, .csv, .tsv or .parquet, packed or plain: see data/rows.py), a .txt file (a text
    a line), a folder in BEIR layout (its documents, title before text), one of `save_to_disk` or of Parquet files, "-"
    for standard input, or "docstrings" for those of the standard library (id: the dotted name). Standard input is a
    text a line; where `field` is given its lines are JSON objects.

    The text is in `field`, or in the first of text, body, content, sentence, passage that any row has. The id is that
    of the field `id` or `_id`, else the number of the row, counted from 1. What is passed over is counted in `skipped`.

    Raises DataError for a source that is missing, empty, binary or of an unknown kind, at once or when the bad line is
    reached.
    """
    name, passed_over = str(source), skipped or Skipped()
    if name == DOCSTRINGS:
        return _docstrings(field)
    if name == STDIN:
        stream = Stream("standard input", sys.stdin.buffer)
        return _not_empty(_streamed(stream, field, passed_over), stream.name)
    path = Path(source)
    if path.is_dir():
        return _not_empty(_in_folder(path, field, passed_over), name)
    check_file(path, (*ENDINGS, PLAIN), also=f", '{DOCSTRINGS}', or '-' for standard input")
    found = _plain(path, field) if kind_of(path) == PLAIN else _records(open_table(path), field, passed_over)
    return _not_empty(found, name)


def count(source: str | Path, *, field: str | None = None, skipped: Skipped | None = None) -> int | None:
    """Read a source to its end and return how many records it has; None for standard input, which is read only once.

    Raises what `read` raises, so a bad line is told before any work is done.
    """
    return None if str(source) == STDIN else sum(1 for _ in read(source, field=field, skipped=skipped))


def _not_empty(records: Iterator[Record], name: str) -> Iterator[Record]:
    first = next(records, None)
    if first is None:
        refuse(f"{name} is empty: there is no text in it to read.")
    yield first
    yield from records


def _plain(path: Path, field: str | None) -> Iterator[Record]:
    with opened(path) as stream:
        yield from _lines(stream, field)


def _streamed(stream: Stream, field: str | None, skipped: Skipped) -> Iterator[Record]:
    """Yield the records of standard input, which cannot be looked through before."""
    if field is None:
        return _lines(stream, field)
    return (_from_row(row, field) for row in json_rows(stream, skipped))


def _lines(stream: Stream, field: str | None) -> Iterator[Record]:
    """Yield a record for each line; blank lines at the end are none."""
    if field is not None:
        refuse(f"{stream.name} is plain text and has no field {field!r}; leave the field out.")
    blank: list[int] = []
    for number, line in stream.lines():
        text = line.rstrip("\r\n")
        if not text.strip():
            blank.append(number)
            continue
        if blank:
            refuse(f"{stream.name}, line {blank[0]} has no text; remove the line.")
        yield Record(str(number), text_of(text, f"{stream.name}, line {number}", "text"))


def _in_folder(folder: Path, field: str | None, skipped: Skipped) -> Iterator[Record]:
    beir = BeirFolder.at(folder)
    if beir is None:
        stored = stored_table(folder)
        if stored is None:
            refuse(f"{folder} is a folder; name a file in it, such as {folder / 'texts.jsonl'}.")
        return _records(stored, field, skipped)
    if field is not None:
        refuse(f"{folder} is in BEIR layout, whose documents are title and text; leave the field {field!r} out.")
    return (Record(document.id, document.whole) for document in beir.documents(skipped))


def _records(table: Table, asked: str | None, skipped: Skipped) -> Iterator[Record]:
    if not table.columns:
        return iter(())
    field = _text_field(table.columns, asked, table.where)
    others = [name for name in (*TEXT_FIELDS, "title") if name in table.columns and name != field]
    if others:
        what = f"columns that hold text too: {listed(others)}"
        skipped.add(what, table.where, "remove them, or make one column of them", number=len(others))
    return (_from_row(row, field) for row in table.rows((field, *ID_FIELDS), skipped))


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
        refuse(f"{where} has no field {wanted}, only {listed(names)}; name one by --field.")
    return found[0]


def _from_row(row: Row, field: str) -> Record:
    text = value_of(row, field)
    name = next((name for name in ID_FIELDS if name != field and name in row.values), None)
    identity = str(row.number) if name is None else identity_of(row.values[name], row.where, name)
    return Record(identity, text_of(text, row.where, field))
