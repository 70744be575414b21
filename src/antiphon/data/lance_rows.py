"""Rows of Lance tables, which LanceDB opens without a server: the folder NAME.lance is the table NAME beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from antiphon.data.byte_streams import refuse
from antiphon.data.rows import Row, Table
from antiphon.data.skipped import Skipped
from antiphon.errors import ConfigError, first_line

ENDING = ".lance"
ROW = "antiphon_row"
"""The column in which `embed` numbers the rows of a table: none of the user's."""
_VERSIONS = "_versions"
_ROWS_AT_ONCE = 4096


def is_lance(path: Path) -> bool:
    """Return whether a path is named as a Lance table."""
    return path.suffix == ENDING


def is_there(folder: Path) -> bool:
    """Return whether a first commit was made."""
    return (folder / _VERSIONS).is_dir()


def database(folder: Path) -> Any:
    """Return LanceDB's connection to the folder that a table lies in; ConfigError where it is not installed."""
    try:
        import lancedb
    except ImportError:
        raise ConfigError(f"{folder} is a Lance table, which needs LanceDB: pip install 'antiphon[scale]'.") from None
    return lancedb.connect(folder.resolve().parent)


def lance_table(folder: Path) -> Table:
    """Return the rows of a Lance table in their order, read some thousand at a time.

    Raises DataError for a folder that is none, and when it is read for one that is broken.
    """
    name = str(folder)
    if not is_there(folder):
        refuse(f"{name} is no Lance table: it has no {_VERSIONS}; name another folder.")
    try:
        opened = database(folder).open_table(folder.stem)
        names = tuple(column for column in opened.schema.names if column != ROW)
    except (OSError, RuntimeError, ValueError) as error:
        refuse(f"{name} cannot be opened as a Lance table ({first_line(error):.200}); mend it or name another.")

    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        wanted, number = [column for column in columns if column in names], 0
        again = database(folder).open_table(folder.stem)
        try:
            for batch in again.search().select(wanted).to_batches(batch_size=_ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, f"{name}, row {number}", values)
        except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
            refuse(f"{name} cannot be read behind row {number} ({first_line(error):.200}); mend it or name another.")

    return Table(name, names, read)
