"""Folders that hold one table in several files: a data set of `save_to_disk`, and Parquet files by split."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from antiphon.data.byte_streams import refuse
from antiphon.data.many_files import joined
from antiphon.data.rows import PARQUET, Row, Table, open_table
from antiphon.data.skipped import Skipped
from antiphon.errors import first_line

_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing)(?![a-z])", re.IGNORECASE)


def stored_table(folder: Path, split: str | None = None) -> Table | None:
    """Return the table of a folder that `datasets` saved or that holds Parquet files, None for any other.

    Of several splits `split` is taken, and where there is one, that one. Raises DataError where the choice is open.
    """
    if (folder / _SAVED).exists():
        return _saved(folder)
    if (folder / _SAVED_SPLITS).exists():
        names = json.loads((folder / _SAVED_SPLITS).read_text(encoding="utf-8")).get("splits", [])
        return _saved(folder / _chosen(folder, names, split, f"name {folder}/SPLIT"))
    splits = _parquet_splits(folder)
    if not splits:
        return None
    name = _chosen(folder, list(splits), split, "name a file, or a folder that has one split alone")
    return joined([open_table(path) for path in splits[name]], str(folder))


def is_stored(folder: Path) -> bool:
    """Return whether a folder says that it holds one table: `datasets` saved it, or its Parquet files name splits."""
    splits = _parquet_splits(folder)
    return (folder / _SAVED).exists() or (folder / _SAVED_SPLITS).exists() or (bool(splits) and "" not in splits)


def table_of(dataset: Any, name: str) -> Table:
    """Return a data set of `datasets` as a table."""

    def read(columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
        wanted = [column for column in columns if column in dataset.column_names]
        for number, values in enumerate(dataset.with_format(None).select_columns(wanted), start=1):
            yield Row(number, f"{name}, row {number}", values)

    return Table(name, tuple(dataset.column_names), read)


def _saved(folder: Path) -> Table:
    import datasets

    try:
        return table_of(datasets.load_from_disk(str(folder)), str(folder))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        refuse(f"{folder} cannot be read as a saved data set ({first_line(error):.200}); save it anew.")


def _parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of a folder, and of those in it, by the split that their name or folder begins with."""
    found: dict[str, list[Path]] = {}
    for path in sorted(chain(folder.glob(f"*{PARQUET}"), folder.glob(f"*/*{PARQUET}"))):
        named = _SPLIT.match(path.stem) or (_SPLIT.fullmatch(path.parent.name) if path.parent != folder else None)
        found.setdefault("" if named is None else named[1].lower(), []).append(path)
    return found


def _chosen(folder: Path, names: Sequence[str], split: str | None, fix: str) -> str:
    if split is not None and split in names:
        return split
    if len(names) != 1:
        listed = ", ".join(repr(name) for name in names) or "none"
        refuse(f"{folder} has the splits {listed}, and one is wanted; {fix}.")
    return names[0]
