"""Data sets of the hub, by their names: `owner/name`, with `:configuration` and `:split` behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from antiphon.data.byte_streams import refuse
from antiphon.data.rows import Row, Table, is_table_name
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import table_of
from antiphon.errors import DataError, first_line

_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")
_BROKEN = (OSError, ValueError, RuntimeError)


def is_hub_name(source: str) -> bool:
    """Return whether a source could be a data set of the hub."""
    return not is_table_name(source) and _HUB.fullmatch(source) is not None


def hub_table(name: str) -> Table:
    """Return a data set of the hub, downloaded whole; of its splits "train" where none is named.

    Raises DataError where it cannot be had.
    """
    return table_of(_loaded(name, streaming=False), name)


def streamed_hub_table(name: str) -> Table:
    """Return a data set of the hub whose rows are fetched while they are read, anew each time; nothing is kept on disk.

    Raises DataError where it cannot be had, and when it is read where the line breaks.
    """
    dataset = _loaded(name, streaming=True)
    names = dataset.column_names or tuple(next(iter(dataset), {}))

    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        number = 0
        try:
            for number, values in enumerate(dataset, start=1):
                yield Row(number, f"{name}, row {number}", {key: values[key] for key in columns if key in values})
        except _BROKEN as error:
            refuse(f"{name} broke off behind row {number} ({first_line(error):.200}); run the same command to go on.")

    return Table(name, tuple(names), read)


def _loaded(name: str, *, streaming: bool) -> Any:
    import datasets

    repository, configuration, split = (*name.split(":"), None, None)[:3]
    try:
        return datasets.load_dataset(repository, configuration, split=split or "train", streaming=streaming)
    except (*_BROKEN, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"There is no file or folder {repository}, and it cannot be had as a data set of the hub "
            f"({first_line(error):.200}); name an existing file or check the name and the connection."
        ) from error
