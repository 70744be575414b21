"""Which index a run of embed goes on with, and what makes way for a new one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from antiphon.corpus.index import MANIFEST, Index, open_index
from antiphon.corpus.makers import differences
from antiphon.corpus.parquet_shards import RECORDS, ParquetShards
from antiphon.corpus.shards import FolderSettings
from antiphon.errors import DataError
from antiphon.files import OURS, HeldFolder, is_free, reason

_SHARD = re.compile(r"part-\d{5,}\.parquet")

logger = logging.getLogger(__name__)


def prepare(place: HeldFolder, settings: FolderSettings, *, force: bool) -> Index:
    """Return the index to go on with: a new one, the one in the folder, or with `force` a new one in its place.

    Raises DataError where the folder was made with other settings, or where files that are no embeddings stand in the
    way; nothing is touched then. Other files beside embeddings stay.
    """
    folder = Path(place.name)
    found = (folder / MANIFEST).exists()
    if not found and not is_free(folder):
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(OURS))
        raise DataError(
            f"{folder} has files in it that are no embeddings of antiphon ({', '.join(names[:3])}); "
            "name another folder by --out. Nothing was written."
        )
    before = _before(folder, force=force) if found else None
    if before is not None and not force:
        check_same(before, settings)
    left = _left(folder, before)
    try:
        for path in left:
            path.unlink()
        if before is not None and not force:
            return before
        if before is not None:
            before.store.remove(len(before.shards))
    except OSError as error:
        raise DataError(f"{folder} cannot be written to ({reason(error)}); name another folder by --out.") from error
    return Index(folder, settings).written()


def _before(folder: Path, *, force: bool) -> Index | None:
    """Return the index that stands in the folder; one that is to be replaced is told, and may be broken."""
    try:
        before = open_index(folder)
    except DataError:
        if force:
            return None
        raise
    if force and before.shards:
        rows = sum(shard.rows for shard in before.shards)
        logger.warning("The %d shards (%s rows) in %s are replaced.", len(before.shards), f"{rows:,}", folder)
    return before


def _left(folder: Path, index: Index | None) -> list[Path]:
    """Return the shards that a killed run left and no manifest lists; DataError for files that only look like them."""
    listed = (
        set() if index is None else {ParquetShards(folder).path(number).name for number in range(len(index.shards))}
    )
    names = sorted(path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    unlisted = [folder / name for name in names if name not in listed]
    foreign = [path.name for path in unlisted if not _is_ours(path)]
    if foreign:
        raise DataError(
            f"{folder} has {', '.join(foreign[:3])} in it, which {MANIFEST} does not list and a shard may be named; "
            "move it away or name another folder by --out. Nothing was written."
        )
    return unlisted


def _is_ours(path: Path) -> bool:
    try:
        return RECORDS in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def check_same(index: Index, settings: FolderSettings) -> None:
    """Raise a DataError, naming the setting that differs, unless a run with these settings can go on with a folder."""
    trouble = "; ".join(differences(index.settings.origin, settings.origin))
    if trouble:
        raise DataError(
            f"{index.folder} was made by a model that reads otherwise: {trouble}. Run it as before, name another "
            "folder by --out, or start anew with --force. Nothing was written."
        )
    if settings.columns != index.settings.columns:
        there, here = (_described(columns) for columns in (index.settings.columns, settings.columns))
        raise DataError(
            f"{index.folder} keeps {there} beside the texts, and this run {here}; name what to keep as before, name "
            "another folder by --out, or start anew with --force. Nothing was written."
        )
    for name, here in asdict(settings).items():
        there = getattr(index.settings, name)
        if here != there and name != "origin":
            raise DataError(
                f"{index.folder} was made with {name} {there!s:.16} and this run has {here!s:.16}; "
                "run it as before, name another folder by --out, or start anew with --force. Nothing was written."
            )


def _described(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "nothing"
