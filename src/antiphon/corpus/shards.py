"""What every store of vectors has in common: settings, shards, and the rows of a shard as an Arrow table. D width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from antiphon.corpus.codec import Codec, Precision
from antiphon.corpus.kept_columns import KeptColumns, as_text, read_back
from antiphon.data.text_columns import Record
from antiphon.model.unit_vectors import Vectors
from antiphon.text.template import Side

PARQUET, LANCE = "parquet", "lance"
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class FolderSettings:
    """What all shards of a folder share; a run with other settings does not go on with it."""

    model: str
    """The model's fingerprint."""
    side: Side
    shard_size: int
    dimensions: int
    batch_tokens: int = 4096
    """Tokens of a forward pass, which decide the last digits of a vector; releases that did not write it had these."""
    compile: bool = False
    origin: dict[str, Any] | None = None
    """Where the model came from and how it reads (`Origin`); None in a folder that an earlier release wrote."""
    columns: dict[str, str] = field(default_factory=dict)
    """The columns that were kept beside the texts, and their types."""
    precision: Precision = "float32"
    store: str = PARQUET


@dataclass(frozen=True)
class Shard:
    """A whole shard: its rows, the SHA-256 of what they hold, and what was written of them."""

    rows: int
    sha256: str
    bytes: int | None = None
    """Of its file; None in a Lance table, and in a folder that an earlier release wrote."""
    file_sha256: str | None = None
    """Of its file; in a Lance table of its rows (`content_digest`)."""


class Store(Protocol):
    """Where the shards of a folder are: files of Parquet, or a Lance table."""

    @property
    def keeps_later(self) -> bool:
        """Whether a shard can be made again and those behind it stay."""
        ...

    def named(self, number: int) -> str:
        """Return what messages call a shard."""
        ...

    def write(self, shards: Sequence[Shard], known: str, table: pa.Table) -> Shard:
        """Write the rows of the shard behind `shards`, whole or not at all; OSError where that fails."""
        ...

    def trouble(self, number: int, shards: Sequence[Shard], *, content: bool) -> str | None:
        """Return what is wrong with a shard, as far as can be told without and with reading all of it."""
        ...

    def batches(self, number: int, shards: Sequence[Shard]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard, in order."""
        ...

    def finish(self, rows: int) -> None:
        """Put in order what is complete, with so many rows; OSError where that fails."""
        ...

    def remove(self, shards: int) -> None:
        """Remove so many shards; OSError where that fails."""
        ...


def records_digest(records: Sequence[Record], kept: Iterable[str] = ()) -> str:
    """Return the SHA-256 of ids, texts and kept columns; lengths stand before them, so no two lists read alike."""
    sha = hashlib.sha256()
    for record in records:
        fields = (as_text(record.fields.get(name)) for name in kept)
        for value in (word.encode() for word in (record.id, record.text, *fields)):
            sha.update(len(value).to_bytes(8, "big"))
            sha.update(value)
    return sha.hexdigest()


def content_digest(table: pa.Table) -> str:
    """Return the SHA-256 of the names, types and values of a table's columns, however they are cut into pieces."""
    sha = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        sha.update(f"{name} {column.type}\n".encode())
        if pa.types.is_fixed_size_list(column.type):
            sha.update(np.ascontiguousarray(column.flatten().to_numpy(zero_copy_only=False)).tobytes())
        else:
            sha.update(json.dumps(column.to_pylist(), ensure_ascii=False, default=str).encode())
    return sha.hexdigest()


def packed(records: Sequence[Record], vectors_ND: Vectors, kept: KeptColumns, codec: Codec) -> pa.Table:
    """Return the columns id, text, those kept, and vector (a list of fixed size, of what the codec stores)."""
    stored_NS = codec.pack(vectors_ND)
    flat = pa.array(np.ascontiguousarray(stored_NS).reshape(-1))
    return pa.table(
        {
            "id": pa.array([record.id for record in records], pa.string()),
            "text": pa.array([record.text for record in records], pa.string()),
            **kept.arrays(records),
            "vector": pa.FixedSizeListArray.from_arrays(flat, stored_NS.shape[1]),
        }
    )


def unpacked(batch: pa.RecordBatch, kept: Mapping[str, str], codec: Codec) -> tuple[list[Record], Vectors]:
    """Return records and unit vectors (N, D) of rows that `packed` made."""
    values = {name: batch.column(name).to_pylist() for name in ("id", "text", *kept)}
    column = batch.column("vector")
    stored_NS = column.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), column.type.list_size)
    rows = range(len(batch))
    records = [Record(values["id"][row], values["text"][row], read_back(kept, values, row)) for row in rows]
    return records, codec.unpack(stored_NS)
