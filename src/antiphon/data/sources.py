"""Texts from files and from memory: tables (see rows.py), plain text, standard input, this Python's docstrings.

A source is read as a stream, so its size does not matter. What is wrong in it is told with file and line; nothing is
repaired in silence. What becomes of the texts is the business of the verbs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from antiphon.data.beir import BeirFolder
from antiphon.data.byte_streams import PLAIN_TEXT, Stream, check_file, kind_of, opened, refuse
from antiphon.data.cells import listed, text_of
from antiphon.data.docstrings import of_standard_library
from antiphon.data.given_rows import NAME, GivenRows, rows_given, table_in_memory
from antiphon.data.hub_sets import is_hub_name, streamed_hub_table
from antiphon.data.lance_rows import is_lance, lance_table
from antiphon.data.many_files import files_in, is_pattern, named_by
from antiphon.data.rows import ENDINGS, Row, Table, json_rows, open_table
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import stored_table
from antiphon.data.text_columns import OWN, Record, TextColumns, Wanted
from antiphon.errors import among

STDIN = "-"
DOCSTRINGS = "docstrings"

TextSource = str | Path | GivenRows
"""Where texts come from: a name, or what is in memory."""
_Read = Callable[[Skipped], Iterator[Record]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Texts that may be read, once or more often."""

    name: str
    read: _Read
    """Called with what counts the things that are passed over."""
    repeatable: bool = True
    """Whether it may be read again: standard input and iterators may not."""
    kept: tuple[str, ...] | None = ()
    """The fields that come with every text; None where that is known only when it is read."""

    def records(self, skipped: Skipped | None = None) -> Iterator[Record]:
        """Yield the records in order; DataError where there is none, and for a bad one when it is reached."""
        found = self.read(skipped or Skipped())
        first = next(found, None)
        if first is None:
            refuse(f"{self.name} is empty: there is no text in it to read.")
        yield first
        yield from found


def open_source(
    source: TextSource,
    *,
    field: str | Sequence[str] | None = None,
    id_field: str | None = None,
    keep: Sequence[str] | None = None,
    skipped: Skipped | None = None,
) -> Source:
    """Return a source, its columns found.

    `source` is a table (.jsonl, .json, .csv, .tsv or .parquet, packed or plain: see data/rows.py), a .txt file (a text
    a line), many of one kind by a pattern (pages/*.parquet; ** is any depth of folders), a folder: in BEIR layout (its
    documents, title before text), of `save_to_disk`, of files of one kind, or a Lance table (NAME.lance); "-" for
    standard input, "docstrings" for those of the standard library (id: the dotted name), a data set of the hub
    (owner/name, with :configuration and :split behind it, train without one), whose rows are fetched while they are
    read; or what is in memory (see `GivenRows`). Standard input is a text a line; where `field` is given its lines are
    JSON objects.

    The text is in `field`, several of them joined by a space; without it in the first of text, body, content,
    sentence, passage that any row has, the title before it where there is one, which is said in the log. The id is that
    of `id_field`, else of the field `id` or `_id`, else the number of the row, counted from 1. Of the other columns
    those in `keep` come with the text, all of them without it. What is passed over is counted in `skipped`.

    Raises DataError for a source that is missing, binary or of an unknown kind, and for a field that it has not.
    """
    wanted, passed_over = Wanted.of(field, id_field, keep), skipped or Skipped()
    if not isinstance(source, str | Path):
        table = table_in_memory(source)
        if table is not None:
            return _of_table(table, NAME, wanted, passed_over)
        rows = rows_given(source)  # type: ignore[arg-type]  # no frame: those are tables
        return Source(NAME, lambda skipped: _streamed(rows, wanted), repeatable=False, kept=None)
    name, path = str(source), Path(source)
    if name == DOCSTRINGS:
        wanted.refused(repr(DOCSTRINGS))
        return Source(name, lambda skipped: (Record(one.name, one.text) for one in of_standard_library()))
    if name == STDIN:
        return _standard_input(wanted)
    if path.is_dir():
        return _in_folder(path, wanted, passed_over)
    if not path.exists() and is_pattern(name):
        return _of_table(named_by(name), name, wanted, passed_over)
    if not path.exists() and is_hub_name(name) and kind_of(path) != PLAIN_TEXT:
        return _of_table(streamed_hub_table(name), name, wanted, passed_over)
    check_file(path, (*ENDINGS, PLAIN_TEXT), also=f", '{DOCSTRINGS}', or '-' for standard input")
    if kind_of(path) == PLAIN_TEXT:
        wanted.refused(f"{name} is plain text and")
        return Source(name, lambda skipped: _plain(path))
    return _of_table(open_table(path), name, wanted, passed_over)


def read(
    source: TextSource,
    *,
    field: str | Sequence[str] | None = None,
    id_field: str | None = None,
    keep: Sequence[str] | None = None,
    skipped: Skipped | None = None,
) -> Iterator[Record]:
    """Yield the records of a source, in order: `open_source` and its records in one."""
    passed_over = skipped or Skipped()
    return open_source(source, field=field, id_field=id_field, keep=keep, skipped=passed_over).records(passed_over)


def _of_table(table: Table, name: str, wanted: Wanted, skipped: Skipped) -> Source:
    if not table.columns:
        return Source(name, lambda skipped: iter(()))
    columns = TextColumns.of(table.columns, table.where, wanted)
    columns.tell(table.columns, table.where, skipped, asked=wanted.texts is not None)
    if wanted.texts is None and len(columns.texts) > 1:
        logger.warning(
            "%s: the fields %s are joined, a space between them; name one by --field (field=) to embed it alone.",
            name, listed(columns.texts),
            extra={"once": True},
        )  # fmt: skip
    return Source(name, lambda skipped: map(columns.record, table.rows(columns.needed, skipped)), kept=columns.kept)


def _standard_input(wanted: Wanted) -> Source:
    """Return standard input, which cannot be looked through before: lines, or objects where a field is named."""
    stream = Stream("standard input", sys.stdin.buffer)
    if wanted.texts is None:
        wanted.refused(f"{stream.name} is a text a line where no field is named, and")
        return Source(stream.name, lambda skipped: _lines(stream), repeatable=False)
    return Source(
        stream.name, lambda skipped: _streamed(json_rows(stream, skipped), wanted), repeatable=False, kept=None
    )


def _streamed(rows: Iterator[Row], wanted: Wanted) -> Iterator[Record]:
    """Yield the records of rows that can be gone through once: the first says which columns there are."""
    first = next(rows, None)
    if first is None:
        return
    columns = TextColumns.of(tuple(first.values), first.where, wanted, streamed=True)
    yield from map(columns.record, chain([first], rows))


def _plain(path: Path) -> Iterator[Record]:
    with opened(path) as stream:
        yield from _lines(stream)


def _lines(stream: Stream) -> Iterator[Record]:
    """Yield a record for each line."""
    for number, line in stream.text_lines():
        yield Record(str(number), text_of(line, f"{stream.name}, line {number}", "text"))


def _in_folder(folder: Path, wanted: Wanted, skipped: Skipped) -> Source:
    beir = BeirFolder.at(folder)
    if beir is not None:
        return _of_beir(beir, wanted)
    table = lance_table(folder) if is_lance(folder) else stored_table(folder) or files_in(folder)
    if table is None:
        refuse(f"{folder} is a folder; name a file in it, such as {folder / 'texts.jsonl'}.")
    return _of_table(table, str(folder), wanted, skipped)


def _of_beir(beir: BeirFolder, wanted: Wanted) -> Source:
    Wanted(wanted.texts, wanted.identity).refused(f"{beir.folder} is in BEIR layout, title before text, and")
    others = beir.others()
    for name in wanted.keep or ():
        if name not in others:
            refuse(f"{beir.corpus} has no field {name!r} to keep; {among(name, others)}.")
    kept = tuple(name for name in others if name not in OWN) if wanted.keep is None else wanted.keep
    return Source(str(beir.folder), partial(_documents, beir, kept), kept=kept)


def _documents(beir: BeirFolder, kept: tuple[str, ...], skipped: Skipped) -> Iterator[Record]:
    return (Record(document.id, document.whole, document.rest) for document in beir.documents(skipped, rest=kept))
