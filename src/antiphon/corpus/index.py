"""A folder of vectors: its shards, and a manifest that says which are whole and what made them.

Shards are files of Parquet or rows of a Lance table, with the columns id, text (strings), those that were kept of the
source (see kept_columns.py) and vector (of unit length, stored as codec.py says). Each is written whole, the manifest
`_embed.json` after it with the shard's size and digest: whenever a run dies, what the manifest lists is whole, and what
has been changed since is found. N rows of a shard, D width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from antiphon.corpus.codec import Codec, Ranges
from antiphon.corpus.kept_columns import KeptColumns
from antiphon.corpus.lance_table import LanceTable
from antiphon.corpus.parquet_shards import ParquetShards
from antiphon.corpus.shards import LANCE, FolderSettings, Shard, Store, packed, records_digest, unpacked
from antiphon.data.text_columns import Record
from antiphon.errors import DataError
from antiphon.files import reason, write_whole
from antiphon.model.unit_vectors import Vectors

MANIFEST = "_embed.json"
VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """A folder, its settings and its shards."""

    folder: Path
    settings: FolderSettings
    shards: tuple[Shard, ...] = ()
    complete: bool = False
    ranges: Ranges | None = None
    """What int8 vectors are stored by; None before the first shard, and for other precisions."""

    @property
    def row_count(self) -> int:
        """The rows of all its shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def store(self) -> Store:
        """Where its shards are."""
        return LanceTable(self.folder) if self.settings.store == LANCE else ParquetShards(self.folder)

    @property
    def codec(self) -> Codec:
        """How its vectors are stored."""
        return Codec(self.settings.precision, self.ranges)

    def holds(self, number: int, records: Sequence[Record], source: str) -> bool:
        """Return whether shard `number` is there, whole, and made of these records.

        Raises DataError where it was made of others, unless they are the beginning of these and no shard follows.
        """
        if number >= len(self.shards):
            return False
        shard, kept = self.shards[number], self.settings.columns
        if records_digest(records, kept) == shard.sha256:
            trouble = self.store.trouble(number, self.shards, content=True)
            if trouble is not None:
                logger.warning("%s %s and is made again.", self.store.named(number), trouble)
            return trouble is None
        last = number == len(self.shards) - 1
        if last and shard.rows < len(records) and records_digest(records[: shard.rows], kept) == shard.sha256:
            return False  # the source has grown since: its last shard is made anew, with more rows
        first = number * self.settings.shard_size + 1
        raise DataError(
            f"{self.folder} was made from another source: rows {first} to {first + len(records) - 1} of {source} are "
            f"not those of {Path(self.store.named(number)).name}; name another folder by --out, or start anew with "
            "--force."
        )

    def with_shard(self, number: int, records: Sequence[Record], vectors: Vectors, kept: KeptColumns) -> Index:
        """Write shard `number` and then the manifest, and return the index that has it.

        Raises DataError where the disk is full or not to be written to; the shards before stay whole.
        """
        store, before = self.store, self.shards[:number]
        table = packed(records, vectors, kept, self.codec)
        try:
            shard = store.write(before, records_digest(records, self.settings.columns), table)
        except OSError as error:
            raise self._not_written(store.named(number), error) from error
        later = self.shards[number + 1 :] if store.keeps_later else ()
        return replace(self, shards=(*before, shard, *later), complete=False).written()

    def finished(self) -> Index:
        """Put what is complete in order, write the manifest that says so, and return the index."""
        try:
            self.store.finish(self.row_count)
        except OSError as error:
            raise self._not_written(str(self.folder), error) from error
        return replace(self, complete=True).written()

    def written(self) -> Index:
        """Write the manifest and return the index itself; DataError where that fails."""
        content = {
            "version": VERSION,
            **asdict(self.settings),
            "complete": self.complete,
            "rows": self.row_count,
            "ranges": None if self.ranges is None else asdict(self.ranges),
            "shards": [asdict(shard) for shard in self.shards],
        }
        try:
            write_whole(self.folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise self._not_written(str(self.folder / MANIFEST), error) from error
        return self

    def _not_written(self, name: str, error: OSError) -> DataError:
        return DataError(
            f"{name} could not be written ({reason(error)}); "
            f"the {len(self.shards)} shards before are whole. Make room or mend the permissions, "
            "and run the same command again to go on."
        )

    def blocks(self, *, verify: bool = False) -> Iterator[tuple[list[Record], Vectors]]:
        """Yield the records and their (N, D) vectors, in order, a few thousand at a time.

        Raises DataError for a shard that is not the one that was written: by what can be told without reading it, with
        `verify` by all its bytes.
        """
        for number, shard in enumerate(self.shards):
            trouble = self.store.trouble(number, self.shards, content=verify)
            if trouble is not None:
                raise DataError(
                    f"{self.store.named(number)} ({shard.rows} rows) {trouble}; "
                    "run the same embed command again to mend it."
                )
            for batch in self.store.batches(number, self.shards):
                yield unpacked(batch, self.settings.columns, self.codec)


def _is_there(field: Field[Any], content: Mapping[str, Any]) -> bool:
    """Return whether a manifest has to have a setting: those with a default came later."""
    return (field.default is MISSING and field.default_factory is MISSING) or field.name in content


def open_index(folder: Path) -> Index:
    """Read the manifest of a folder; DataError where it is none of ours or broken."""
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']!r}, and {VERSION} is known")
        settings = FolderSettings(
            **{field.name: content[field.name] for field in fields(FolderSettings) if _is_there(field, content)}
        )
        shards = tuple(_shard(shard) for shard in content["shards"])
        ranges = content.get("ranges")
        known = None if ranges is None else Ranges(tuple(ranges["lowest"]), tuple(ranges["highest"]))
        return Index(folder, settings, shards, bool(content["complete"]), known)
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no {MANIFEST}; make it with `antiphon embed MODEL SOURCE --out DIR`."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no manifest of embeddings ({type(error).__name__}: {error}); start anew with --force."
        ) from error


def _shard(entry: dict[str, Any]) -> Shard:
    size, sha256 = entry.get("bytes"), entry.get("file_sha256")
    return Shard(
        int(entry["rows"]),
        str(entry["sha256"]),
        None if size is None else int(size),
        None if sha256 is None else str(sha256),
    )
