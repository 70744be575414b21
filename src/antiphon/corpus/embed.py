"""From a source of texts to a folder of vectors, streamed and resumable.

What a folder looks like is index.py's business, how a source is read that of sources.py. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from sentence_transformers import SentenceTransformer

from antiphon.corpus.index import Index, Settings, Vectors
from antiphon.corpus.kept_columns import KeptColumns
from antiphon.corpus.resuming import prepare
from antiphon.corpus.windows import BATCH_TOKENS, chunks_of, windows
from antiphon.data.skipped import Skipped
from antiphon.data.sources import Source, TextSource, open_source
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.files import held
from antiphon.model.fingerprint import fingerprint
from antiphon.model.origin import Origin
from antiphon.text.template import SIDES

Progress = Callable[[int, int | None], None]
"""Told how many texts are done, and how many there are where that is known."""

_LOOKED_AT = 4096
"""Records of which the kept columns are typed together."""


def embed(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    source: TextSource,
    out: str | Path,
    *,
    field: str | Sequence[str] | None = None,
    id_field: str | None = None,
    keep: Sequence[str] | None = None,
    side: str = "document",
    shard_size: int = 1024,
    batch_size: int = 32,
    force: bool = False,
    on_progress: Progress | None = None,
    strict: bool = False,
    batch_tokens: int | None = None,
    compile: bool = False,
) -> Path:
    """Write the unit vectors of a source to Parquet shards in the folder `out`, and return it.

    `source` is a file, a folder, or what is in memory: strings, dicts, a `datasets.Dataset`, a frame of pandas or
    polars. The text is in `field` (several are joined by a space; found by itself, a title before it, without it), the
    id in `id_field` or `id`; the columns in `keep`, without it all others, stand beside the text in the shards.
    A run that died goes on where it was when it is started again, to the same bytes; so does one whose source has grown
    at its end. A whole source is read once before anything is written, so that a bad line is told first; standard
    input and iterators cannot be, and the kept columns of these are those of the first shard. `force` throws away what
    an earlier run left in `out`, never the files of others.
    What is passed over is counted and told in the log at the end; `strict` refuses it. `batch_tokens` are the tokens of
    a forward pass and `compile` compiles the layers; a run that goes on needs both as they were.

    Raises ConfigError for a setting that cannot be used; DataError for a bad source, a disk that is full, or a folder
    that others made or another process writes to; ModelError for a vector that is NaN or zero.

    Example:
        >>> import antiphon
        >>> antiphon.embed(antiphon.build("nano"), ["sort a list", "open a file"], "vectors").name
        'vectors'
    """
    _check_settings(side, shard_size, batch_size)
    skipped = Skipped(strict=strict)
    opened = open_source(source, field=field, id_field=id_field, keep=keep, skipped=skipped)
    total, kept = _looked_through(opened, skipped)
    chunks = chunks_of(opened.records(None if opened.repeatable else skipped), shard_size)
    first = next(chunks, [])  # before anything is written: an empty standard input leaves no folder behind
    kept = kept if kept is not None else KeptColumns().with_values_of(first)
    budget = batch_tokens or BATCH_TOKENS
    origin, width = Origin.of(model).to_dict(), _width(model)
    settings = Settings(fingerprint(model), side, shard_size, width, budget, compile, origin, kept.described)
    with held(out, "embed") as place:
        index = prepare(place, settings, force=force)
        tell, encoder = on_progress or _silent, Encoder(model, budget=budget, compile=compile)
        done = number = 0
        for number, records in enumerate(chain([first], chunks), start=1):
            kept.tell_missing(records, opened.name, skipped)
            if not index.holds(number - 1, records, opened.name):
                found = windows(encoder, records, side=side, batch_size=batch_size)
                index = index.with_shard(number - 1, records, _joined(found, tell, done, total), kept)
            done += len(records)
            tell(done, total)
        skipped.tell(opened.name)
        return _finished(index, number, opened.name).folder


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def _joined(found: Iterable[Vectors], tell: Progress, done: int, total: int | None) -> Vectors:
    """Return the vectors of a shard (N, D), and tell after each window how many texts are done."""
    vectors: list[Vectors] = []
    for window in found:
        vectors.append(window)
        tell(done + sum(map(len, vectors)), total)
    return np.concatenate(vectors)


def _looked_through(source: Source, skipped: Skipped) -> tuple[int | None, KeptColumns | None]:
    """Read a whole source, and return how many texts it has and their kept columns; neither where it is read once."""
    if not source.repeatable:
        return None, None
    total, kept = 0, KeptColumns({name: pa.null() for name in source.kept or ()})
    for records in chunks_of(source.records(skipped), _LOOKED_AT):
        total += len(records)
        kept = kept.with_values_of(records)
    return total, kept


def _width(model: SentenceTransformer) -> int:
    width = model.get_embedding_dimension()
    if width is None:
        raise ModelError("The model does not say how wide its vectors are; end it with a pooling module that does.")
    return int(width)


def _check_settings(side: str, shard_size: int, batch_size: int) -> None:
    if side not in SIDES:
        raise ConfigError(f"There is no side {side!r}; take one of {', '.join(SIDES)}.")
    for name, value in (("shard_size", shard_size), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; a whole number of at least 1 is wanted.")


def _finished(index: Index, shards: int, source: str) -> Index:
    """Return the index with its manifest marked complete; DataError where it has more than the source gave."""
    if shards < len(index.shards):
        raise DataError(
            f"{index.folder} was made from another source: {source} ends after {shards} of its {len(index.shards)} "
            "shards; name another folder by --out, or start anew with --force."
        )
    return index if index.complete else replace(index, complete=True).written()
