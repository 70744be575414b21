"""Shards as rows of a Lance table, which LanceDB opens and searches without a server.

The folder NAME.lance is the table NAME of the folder above it. A shard is one commit of the table, so it is there whole
or not at all. The column `antiphon_row` numbers the rows from 0: what a killed run committed and no manifest lists is
found by it and taken away before the next commit, so no row is lost and none is there twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from antiphon.corpus.shards import ROWS_AT_ONCE, Shard, content_digest
from antiphon.data.lance_rows import ROW, database, is_there
from antiphon.errors import first_line


@dataclass(frozen=True)
class LanceTable:
    """The table of a folder."""

    folder: Path
    keeps_later: bool = False

    @property
    def is_there(self) -> bool:
        """Whether a first commit was made."""
        return is_there(self.folder)

    def opened(self) -> Any:
        """Return LanceDB's table."""
        return database(self.folder).open_table(self.folder.stem)

    def named(self, number: int) -> str:
        """Return what messages call a shard."""
        return f"{self.folder}, shard {number}"

    def write(self, shards: Sequence[Shard], known: str, table: pa.Table) -> Shard:
        """Commit the rows of a shard behind those of `shards`, and nothing else; OSError where that fails."""
        first = sum(shard.rows for shard in shards)
        numbered = table.append_column(ROW, pa.array(np.arange(first, first + table.num_rows), pa.int64()))
        with _as_os_error():
            if not self.is_there:
                database(self.folder).create_table(self.folder.stem, numbered)
            elif not shards:
                database(self.folder).create_table(self.folder.stem, numbered, mode="overwrite")
            else:
                opened = self.opened()
                self._cut(opened, first)
                opened.add(numbered)
        return Shard(table.num_rows, known, None, content_digest(numbered))

    def trouble(self, number: int, shards: Sequence[Shard], *, content: bool) -> str | None:
        """Return what is wrong with a shard: rows that are missing and, where asked for, another content."""
        first, shard = sum(one.rows for one in shards[:number]), shards[number]
        try:
            if not self.is_there:
                return "is missing"
            opened = self.opened()
            if opened.count_rows() < first + shard.rows:
                return f"is missing (the table has {opened.count_rows():,} rows)"
            if content and content_digest(_rows(opened, first, shard.rows)) != shard.file_sha256:
                return "is not what was written (its SHA-256 is another)"
        except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
            return f"cannot be read ({first_line(error):.200})"
        return None

    def batches(self, number: int, shards: Sequence[Shard]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard, in order."""
        first = sum(one.rows for one in shards[:number])
        yield from _rows(self.opened(), first, shards[number].rows).to_batches(max_chunksize=ROWS_AT_ONCE)

    def finish(self, rows: int) -> None:
        """Take away what no shard lists, lay the pieces of many commits together and drop old versions."""
        with _as_os_error():
            opened = self.opened()
            self._cut(opened, rows)
            # whoever searches a version from before at this very moment fails, and finds the new one the next time
            opened.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)

    def remove(self, shards: int) -> None:
        """The first commit of the next run takes the place of all rows."""

    def _cut(self, opened: Any, rows: int) -> None:
        """Have the table end after so many rows."""
        if opened.count_rows() > rows:
            opened.delete(f"{ROW} >= {rows}")


def _rows(opened: Any, first: int, number: int) -> pa.Table:
    """Return rows of a table by their place, which is their number."""
    found: pa.Table = opened.search().offset(first).limit(number).to_arrow()
    return found


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise as an OSError what LanceDB says of a disk: it has no exception of its own for one that is full."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise OSError(first_line(error)) from error
