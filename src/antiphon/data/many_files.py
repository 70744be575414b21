"""Many files of one kind as one table: those that a pattern such as pages/*.parquet names, or those of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import chain
from pathlib import Path

from antiphon.data.byte_streams import PLAIN_TEXT, kind_of, opened, refuse
from antiphon.data.rows import ENDINGS, Row, Table, open_table
from antiphon.data.skipped import Skipped

_PATTERN = re.compile(r"[*?\[]")


def is_pattern(source: str) -> bool:
    """Return whether a source that does not exist names files by a pattern."""
    return _PATTERN.search(source) is not None


def named_by(pattern: str) -> Table:
    """Return the table of the files that a pattern names (** is any depth of folders), in the order of their paths.

    Raises DataError where there is none, and where they are of several kinds or of an unknown one.
    """
    paths = [Path(path) for path in sorted(glob(pattern, recursive=True)) if Path(path).is_file()]
    if not paths:
        refuse(f"No file is named {pattern}; mend the pattern, and put it in quotes so that the shell leaves it alone.")
    other = next((path for path in paths if kind_of(path) not in _KINDS), None)
    if other is not None:
        refuse(f"{pattern} names {other} too, which is no known kind of source; have the pattern say the ending.")
    return _joined(paths, pattern, "have the pattern say the ending")


def files_in(folder: Path) -> Table | None:
    """Return the table of the files that stand in a folder, hidden and unknown ones left out; None where there is none.

    Raises DataError where they are of several kinds.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    known = [path for path in paths if kind_of(path) in _KINDS]
    return _joined(known, str(folder), f"name those that are meant, such as '{folder}/*.jsonl'") if known else None


def joined(tables: Sequence[Table], name: str) -> Table:
    """Return the rows of tables one after the other, numbered over all of them; its columns are those of any."""
    columns = tuple(dict.fromkeys(column for table in tables for column in table.columns))

    def read(wanted: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        rows = chain.from_iterable(table.rows(wanted, skipped) for table in tables)
        for number, row in enumerate(rows, start=1):
            yield Row(number, row.where, row.values)

    return Table(name, columns, read)


def _joined(paths: Sequence[Path], name: str, fix: str) -> Table:
    kinds = sorted({kind_of(path) for path in paths})
    if len(kinds) > 1:
        refuse(f"{name} names files of several kinds ({', '.join(kinds)}), and one is wanted; {fix}.")
    return joined([_lines(path) if kinds == [PLAIN_TEXT] else open_table(path) for path in paths], name)


def _lines(path: Path) -> Table:
    """Return a file of a text a line as a table of the one column text."""

    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        with opened(path) as stream:
            for number, line in stream.text_lines():
                yield Row(number, f"{path}, line {number}", {"text": line})

    return Table(str(path), ("text",), read)


_KINDS = (*ENDINGS, PLAIN_TEXT)
