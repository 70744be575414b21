"""A folder of vectors: Parquet shards and a manifest that says which are whole and what made them.

`part-00000.parquet` has the columns id, text (strings) and vector (fixed-size list of float32, unit length). Each is
written under another name and moved into place, the manifest `_embed.json` after it: whenever a run dies, what the
manifest lists is whole. N rows of a shard, D width.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from antiphon.data.sources import Record
from antiphon.errors import DataError, ModelError
from antiphon.files import PARTIAL, write_whole

Vectors = npt.NDArray[np.float32]

MANIFEST = "_embed.json"
VERSION = 1
_OURS = re.compile(r"part-\d{5,}\.parquet|_embed\.json")
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Settings:
    """What all shards of a folder share; a run with other settings does not go on with it."""

    model: str
    """The model's fingerprint."""
    side: str
    shard_size: int
    dimensions: int


@dataclass(frozen=True)
class Shard:
    """A whole shard: its rows, and the SHA-256 of their ids and texts."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """A folder, its settings and its shards."""

    folder: Path
    settings: Settings
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    def shard_path(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"part-{number:05d}.parquet"

    def holds(self, number: int, records: Sequence[Record], source: str) -> bool:
        """Return whether shard `number` is there, whole, and made of these records.

        Raises DataError where it was made of others, unless they are the beginning of these and no shard follows.
        """
        if number >= len(self.shards):
            return False
        shard = self.shards[number]
        if digest(records) == shard.sha256:
            return self._readable(number)
        last = number == len(self.shards) - 1
        if last and shard.rows < len(records) and digest(records[: shard.rows]) == shard.sha256:
            return False  # the source has grown since: its last shard is made anew, with more rows
        first = number * self.settings.shard_size + 1
        raise DataError(
            f"{self.folder} was made from another source: rows {first} to {first + len(records) - 1} of {source} are "
            f"not those of {self.shard_path(number).name}; name another folder by --out, or start anew with --force."
        )

    def _readable(self, number: int) -> bool:
        try:
            return bool(pq.read_metadata(self.shard_path(number)).num_rows == self.shards[number].rows)
        except (OSError, pa.ArrowException):
            return False

    def with_shard(self, number: int, records: Sequence[Record], vectors: Vectors) -> Index:
        """Write shard `number` and then the manifest, and return the index that has it.

        Raises DataError where the disk is full or not to be written to; the shards before stay whole.
        """
        data = _parquet(records, vectors)
        self._write(self.shard_path(number), data)
        shards = (*self.shards[:number], Shard(len(records), digest(records)), *self.shards[number + 1 :])
        return replace(self, shards=shards, complete=False).written()

    def written(self) -> Index:
        """Write the manifest and return the index itself; DataError where that fails."""
        content = {
            "version": VERSION,
            **asdict(self.settings),
            "complete": self.complete,
            "rows": sum(shard.rows for shard in self.shards),
            "shards": [asdict(shard) for shard in self.shards],
        }
        self._write(self.folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
        return self

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        try:
            write_whole(path, data)
        except OSError as error:
            raise DataError(
                f"{path} could not be written ({error.strerror or error}); "
                f"the {len(self.shards)} shards before are whole. Make room or mend the permissions, "
                "and run the same command again to go on."
            ) from error

    def blocks(self) -> Iterator[tuple[list[Record], Vectors]]:
        """Yield the records and their (N, D) vectors, in order, a few thousand at a time."""
        for number, shard in enumerate(self.shards):
            if not self._readable(number):
                raise DataError(
                    f"{self.shard_path(number)} is missing or broken ({shard.rows} rows); "
                    "run the same embed command again to mend it."
                )
            with pq.ParquetFile(self.shard_path(number)) as file:
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                    yield _unpacked(batch)


def digest(records: Sequence[Record]) -> str:
    """Return the SHA-256 of ids and texts; lengths stand before them, so no two lists read alike."""
    sha = hashlib.sha256()
    for record in records:
        for value in (record.id.encode(), record.text.encode()):
            sha.update(len(value).to_bytes(8, "big"))
            sha.update(value)
    return sha.hexdigest()


def open_index(folder: Path) -> Index:
    """Read the manifest of a folder; DataError where it is none of ours or broken."""
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']!r}, and {VERSION} is known")
        settings = Settings(**{key: content[key] for key in ("model", "side", "shard_size", "dimensions")})
        shards = tuple(Shard(int(shard["rows"]), str(shard["sha256"])) for shard in content["shards"])
        return Index(folder, settings, shards, bool(content["complete"]))
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no {MANIFEST}; make it with `antiphon embed MODEL SOURCE --out DIR`."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no manifest of embeddings ({type(error).__name__}: {error}); start anew with --force."
        ) from error


def prepare(folder: Path, settings: Settings, *, force: bool) -> Index:
    """Return the index to go on with: a new one, the one in the folder, or with `force` a new one in its place.

    Raises DataError where the folder has anything else in it, or was made with other settings; nothing is touched then.
    """
    _check_only_ours(folder)
    found = (folder / MANIFEST).exists()
    if found and not force:
        index = open_index(folder)
        _check_same(index, settings)
    else:
        index = Index(folder, settings)
    _clear(folder, shards=found and force)
    return index if found and not force else index.written()


def _clear(folder: Path, *, shards: bool) -> None:
    """Make the folder, and remove what a killed run left half-written, with `shards` the shards too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*folder.glob(f".*{PARTIAL}"), *(folder.glob("part-*.parquet") if shards else ())]:
            path.unlink()
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}); name another folder by --out."
        ) from error


def _check_only_ours(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder by --out. Nothing was written.")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not _OURS.fullmatch(name.removeprefix(".").removesuffix(PARTIAL))]
    if not foreign and MANIFEST not in names:
        foreign = [name for name in names if not name.endswith(PARTIAL)]  # shards, but not of a run of ours
    if foreign:
        raise DataError(
            f"{folder} has files in it that are no embeddings of antiphon ({', '.join(foreign[:3])}); "
            "name another folder by --out. Nothing was written."
        )


def _check_same(index: Index, settings: Settings) -> None:
    for name, here in asdict(settings).items():
        there = getattr(index.settings, name)
        if here != there:
            raise DataError(
                f"{index.folder} was made with {name} {there!s:.16} and this run has {here!s:.16}; "
                "run it as before, name another folder by --out, or start anew with --force. Nothing was written."
            )


def _parquet(records: Sequence[Record], vectors: Vectors) -> memoryview:
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    table = pa.table(
        {
            "id": pa.array([record.id for record in records], pa.string()),
            "text": pa.array([record.text for record in records], pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, use_dictionary=False)
    return memoryview(sink.getvalue())


def _unpacked(batch: pa.RecordBatch) -> tuple[list[Record], Vectors]:
    ids, texts = batch.column("id").to_pylist(), batch.column("text").to_pylist()
    column = batch.column("vector")
    vectors: Vectors = column.flatten().to_numpy().reshape(len(batch), column.type.list_size)
    return [Record(*pair) for pair in zip(ids, texts, strict=True)], vectors


def unit(vectors: Vectors, names: Sequence[str], *, called: str = "with id ") -> Vectors:
    """Return the (N, D) vectors at unit length; ModelError naming the text whose vector has none."""
    norms_N1 = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms_N1) & (norms_N1 > 0)))
    if len(bad):
        raise ModelError(
            f"The vector of the text {called}{names[bad[0]]!r:.60} has norm {float(norms_N1[bad[0], 0])}; the model's "
            "output is broken: load it in float32, or look at it with `antiphon show`."
        )
    normalised: Vectors = (vectors / norms_N1).astype(np.float32)
    return normalised
