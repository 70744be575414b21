"""Shards as files of Parquet: part-00000.parquet, part-00001.parquet, and so on.

Each is written under another name and moved into place. Its footer holds the digest of its records. Other files in the
folder are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from antiphon.corpus.shards import ROWS_AT_ONCE, Shard
from antiphon.errors import first_line
from antiphon.files import digest, write_whole

RECORDS = b"antiphon.records"
"""The key in a shard's footer that holds the digest of its records."""


@dataclass(frozen=True)
class ParquetShards:
    """The files of a folder."""

    folder: Path
    keeps_later: bool = True

    def path(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"part-{number:05d}.parquet"

    def named(self, number: int) -> str:
        """Return the path of a shard, for messages."""
        return str(self.path(number))

    def write(self, shards: Sequence[Shard], known: str, table: pa.Table) -> Shard:
        """Write a shard's file; OSError where that fails."""
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({RECORDS: known.encode()}), sink, use_dictionary=False)
        data = memoryview(sink.getvalue())
        write_whole(self.path(len(shards)), data)
        return Shard(table.num_rows, known, len(data), hashlib.sha256(data).hexdigest())

    def trouble(self, number: int, shards: Sequence[Shard], *, content: bool) -> str | None:
        """Return what is wrong with a shard's file, by its size and footer and, where asked for, by all its bytes."""
        path, shard = self.path(number), shards[number]
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

    def batches(self, number: int, shards: Sequence[Shard]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard, in order."""
        with pq.ParquetFile(self.path(number)) as file:
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE)

    def finish(self, rows: int) -> None:
        """Files need nothing more."""

    def remove(self, shards: int) -> None:
        """Remove the files of so many shards; OSError where that fails."""
        for number in range(shards):
            self.path(number).unlink(missing_ok=True)
