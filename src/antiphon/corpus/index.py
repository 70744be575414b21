"""A folder of vectors: Parquet shards and a manifest that says which are whole and what made them.

`part-00000.parquet` has the columns id, text (strings), those that were kept of the source (see kept_columns.py) and
vector (fixed-size list of float32, unit length). Each is written under another name and moved into place, the manifest
`_embed.json` after it with the shard's size and digest: whenever a run dies, what the manifest lists is whole, and what
has been changed since is found. Other files in the folder are left alone. N rows of a shard, D width.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from antiphon.corpus.kept_columns import KeptColumns, read_back, spelled
from antiphon.data.text_columns import Record
from antiphon.errors import DataError, first_line
from antiphon.files import digest, reason, write_whole

Vectors = npt.NDArray[np.float32]

MANIFEST = "_embed.json"
VERSION = 1
RECORDS = b"antiphon.records"
"""The key in a shard's footer that holds the digest of its records."""
_ROWS_AT_ONCE = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What all shards of a folder share; a run with other settings does not go on with it."""

    model: str
    """The model's fingerprint."""
    side: str
    shard_size: int
    dimensions: int
    batch_tokens: int = 4096
    """Tokens of a forward pass, which decide the last digits of a vector; releases that did not write it had these."""
    compile: bool = False
    origin: dict[str, Any] | None = None
    """Where the model came from and how it reads (`Origin`); None in a folder that an earlier release wrote."""
    columns: dict[str, str] = field(default_factory=dict)
    """The columns that were kept beside the texts, and their types."""


@dataclass(frozen=True)
class Shard:
    """A whole shard: its rows, the SHA-256 of what they hold, and what its file was when it was written."""

    rows: int
    sha256: str
    bytes: int | None = None
    """None in a folder that an earlier release wrote."""
    file_sha256: str | None = None


@dataclass(frozen=True)
class Index:
    """A folder, its settings and its shards."""

    folder: Path
    settings: Settings
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    @property
    def row_count(self) -> int:
        """The rows of all its shards."""
        return sum(shard.rows for shard in self.shards)

    def shard_path(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"part-{number:05d}.parquet"

    def holds(self, number: int, records: Sequence[Record], source: str) -> bool:
        """Return whether shard `number` is there, whole, and made of these records.

        Raises DataError where it was made of others, unless they are the beginning of these and no shard follows.
        """
        if number >= len(self.shards):
            return False
        shard, kept = self.shards[number], self.settings.columns
        if records_digest(records, kept) == shard.sha256:
            trouble = self._trouble(number, content=True)
            if trouble is not None:
                logger.warning("%s %s and is made again.", self.shard_path(number), trouble)
            return trouble is None
        last = number == len(self.shards) - 1
        if last and shard.rows < len(records) and records_digest(records[: shard.rows], kept) == shard.sha256:
            return False  # the source has grown since: its last shard is made anew, with more rows
        first = number * self.settings.shard_size + 1
        raise DataError(
            f"{self.folder} was made from another source: rows {first} to {first + len(records) - 1} of {source} are "
            f"not those of {self.shard_path(number).name}; name another folder by --out, or start anew with --force."
        )

    def _trouble(self, number: int, *, content: bool) -> str | None:
        """Return what is wrong with a shard's file, by its size and footer and, where asked for, by all its bytes."""
        path, shard = self.shard_path(number), self.shards[number]
        try:
            footer = pq.read_metadata(path)
            own = (footer.metadata or {}).get(RECORDS)
            if shard.bytes not in (None, path.stat().st_size):
                return f"has {path.stat().st_size:,} bytes where {shard.bytes:,} were written"
            if footer.num_rows != shard.rows or own not in (None, shard.sha256.encode()):
                return "is the file of other rows"
            if content and shard.file_sha256 not in (None, digest(path)):
                return "is not what was written (its SHA-256 is another)"
        except FileNotFoundError:
            return "is missing"
        except (OSError, pa.ArrowException) as error:
            return f"cannot be read ({first_line(error)})"
        return None

    def with_shard(self, number: int, records: Sequence[Record], vectors: Vectors, kept: KeptColumns) -> Index:
        """Write shard `number` and then the manifest, and return the index that has it.

        Raises DataError where the disk is full or not to be written to; the shards before stay whole.
        """
        known = records_digest(records, self.settings.columns)
        data = _parquet(records, vectors, kept, known)
        self._write(self.shard_path(number), data)
        shard = Shard(len(records), known, len(data), hashlib.sha256(data).hexdigest())
        shards = (*self.shards[:number], shard, *self.shards[number + 1 :])
        return replace(self, shards=shards, complete=False).written()

    def written(self) -> Index:
        """Write the manifest and return the index itself; DataError where that fails."""
        content = {
            "version": VERSION,
            **asdict(self.settings),
            "complete": self.complete,
            "rows": self.row_count,
            "shards": [asdict(shard) for shard in self.shards],
        }
        self._write(self.folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
        return self

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        try:
            write_whole(path, data)
        except OSError as error:
            raise DataError(
                f"{path} could not be written ({reason(error)}); "
                f"the {len(self.shards)} shards before are whole. Make room or mend the permissions, "
                "and run the same command again to go on."
            ) from error

    def blocks(self, *, verify: bool = False) -> Iterator[tuple[list[Record], Vectors]]:
        """Yield the records and their (N, D) vectors, in order, a few thousand at a time.

        Raises DataError for a shard that is not the one that was written: by its size and footer, with `verify` by all
        its bytes.
        """
        for number, shard in enumerate(self.shards):
            trouble = self._trouble(number, content=verify)
            if trouble is not None:
                raise DataError(
                    f"{self.shard_path(number)} ({shard.rows} rows) {trouble}; "
                    "run the same embed command again to mend it."
                )
            with pq.ParquetFile(self.shard_path(number)) as file:
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                    yield _unpacked(batch, self.settings.columns)


def records_digest(records: Sequence[Record], kept: Iterable[str] = ()) -> str:
    """Return the SHA-256 of ids, texts and kept columns; lengths stand before them, so no two lists read alike."""
    sha = hashlib.sha256()
    for record in records:
        fields = (spelled(record.fields.get(name)) for name in kept)
        for value in (word.encode() for word in (record.id, record.text, *fields)):
            sha.update(len(value).to_bytes(8, "big"))
            sha.update(value)
    return sha.hexdigest()


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
        settings = Settings(
            **{field.name: content[field.name] for field in fields(Settings) if _is_there(field, content)}
        )
        shards = tuple(_shard(shard) for shard in content["shards"])
        return Index(folder, settings, shards, bool(content["complete"]))
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


def _parquet(records: Sequence[Record], vectors: Vectors, kept: KeptColumns, known: str) -> memoryview:
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    table = pa.table(
        {
            "id": pa.array([record.id for record in records], pa.string()),
            "text": pa.array([record.text for record in records], pa.string()),
            **kept.arrays(records),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({RECORDS: known.encode()}), sink, use_dictionary=False)
    return memoryview(sink.getvalue())


def _unpacked(batch: pa.RecordBatch, kept: Mapping[str, str]) -> tuple[list[Record], Vectors]:
    values = {name: batch.column(name).to_pylist() for name in ("id", "text", *kept)}
    column = batch.column("vector")
    vectors: Vectors = column.flatten().to_numpy().reshape(len(batch), column.type.list_size)
    rows = range(len(batch))
    return [Record(values["id"][row], values["text"][row], read_back(kept, values, row)) for row in rows], vectors
