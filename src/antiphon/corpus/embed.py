"""From a source of texts to a folder of vectors, streamed and resumable.

What a folder looks like is index.py's business, how a source is read that of sources.py. N texts, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa
from sentence_transformers import SentenceTransformer

from antiphon.corpus.codec import Precision, Ranges, check_precision
from antiphon.corpus.index import Index, open_index
from antiphon.corpus.kept_columns import KeptColumns
from antiphon.corpus.lance_table import is_lance
from antiphon.corpus.resuming import check_same, prepare
from antiphon.corpus.seen import Seen
from antiphon.corpus.shards import LANCE, PARQUET, Settings
from antiphon.corpus.windows import BATCH_TOKENS, ShardEncoder, chunks_of
from antiphon.data.progress_bar import Progress, telling
from antiphon.data.skipped import Skipped
from antiphon.data.sources import Source, TextSource, open_source
from antiphon.data.text_columns import Record
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.files import held
from antiphon.model.fingerprint import fingerprint
from antiphon.model.origin import Origin
from antiphon.text.template import SIDES, Side

SHARD_SIZES = {PARQUET: 1024, LANCE: 8192}
"""Texts in a shard. A Lance table keeps a version for every shard until it is complete, so its shards are larger."""
CALIBRATED_ON = 4096
"""Texts, evenly spread over the source, that the ranges of int8 are taken from."""
_LOOKED_AT = 4096
"""Records of which the kept columns are typed together."""
_TOO_MUCH_OUTSIDE = 0.01

logger = logging.getLogger(__name__)


def embed(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    source: TextSource,
    out: str | Path,
    *,
    field: str | Sequence[str] | None = None,
    id_field: str | None = None,
    keep: Sequence[str] | None = None,
    side: Side = "document",
    precision: Precision = "float32",
    truncate_dim: int | None = None,
    shard_size: int | None = None,
    batch_size: int = 32,
    force: bool = False,
    verify: bool = False,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    strict: bool = False,
    batch_tokens: int | None = None,
    compile: bool = False,
) -> Path:
    """Write the unit vectors of a source to the folder `out`, and return it: Parquet, or Lance where it ends in .lance.

    `source` is a file, a folder, or what is in memory: strings, dicts, a `datasets.Dataset`, a frame of pandas or
    polars. The text is in `field` (several are joined by a space; found by itself, a title before it, without it), the
    id in `id_field` or `id`; the columns in `keep`, without it all others, stand beside the text in the shards.
    Of each vector the first `truncate_dim` dimensions are kept, at unit length, in `precision` (see corpus/codec.py).

    A run that died goes on where it was when it is started again, to the same rows; so does one whose source has grown
    at its end. A whole source is read once before anything is written, so that a bad line is told first; standard
    input and iterators cannot be, and the kept columns of these are those of the first shard. `force` throws away what
    an earlier run left in `out`, never the files of others. `verify` writes nothing: it reads every byte of a complete
    `out` and compares its rows with the source.
    What is passed over is counted and told in the log at the end; `strict` refuses it. `batch_tokens` are the tokens of
    a forward pass and `compile` compiles the layers; a run that goes on needs both as they were. `progress` shows a
    bar, without it in interactive use only; `on_progress` takes its place.

    Raises ConfigError for a setting that cannot be used; DataError for a bad source, two texts of one id, a disk that
    is full, a folder that others made or another process writes to, or one that does not pass `verify`; ModelError for
    a vector that is NaN or zero.

    Example:
        >>> import antiphon
        >>> antiphon.embed(antiphon.build("nano"), ["sort a list", "open a file"], "vectors").name
        'vectors'
    """
    store, skipped = LANCE if is_lance(Path(out)) else PARQUET, Skipped(strict=strict)
    size, width = SHARD_SIZES[store] if shard_size is None else shard_size, _width(model, truncate_dim)
    _check_settings(side, size, batch_size, precision, width)
    job = _Job.of(open_source(source, field=field, id_field=id_field, keep=keep, skipped=skipped), size, skipped)
    settings = Settings(
        fingerprint(model), side, size, width, batch_tokens or BATCH_TOKENS, compile, Origin.of(model).to_dict(),
        job.kept.described, precision, store,
    )  # fmt: skip
    if verify:
        return _verified(Path(out), settings, job)
    with held(out, "embed") as place, telling("embedding", progress, on_progress) as tell:
        index = prepare(place, settings, force=force)
        encode = ShardEncoder(Encoder(model, budget=settings.batch_tokens, compile=compile), side, batch_size, width)
        return _filled(index, job, encode, tell).folder


@dataclass(frozen=True)
class _Job:
    """A source cut into shards, and what was found by reading it once, where that can be."""

    source: Source
    total: int | None
    kept: KeptColumns
    chunks: Iterable[list[Record]]
    skipped: Skipped

    @classmethod
    def of(cls, source: Source, shard_size: int, skipped: Skipped) -> _Job:
        total, found = _looked_through(source, skipped)
        chunks = chunks_of(source.records(None if source.repeatable else skipped), shard_size)
        first = next(chunks, [])  # before anything is written: an empty standard input leaves no folder behind
        kept = found if found is not None else KeptColumns().with_values_of(first)
        return cls(source, total, kept, _checked(chain([first], chunks), source, kept, skipped), skipped)

    def spread(self) -> Iterator[Record] | None:
        """Yield up to CALIBRATED_ON texts evenly spread over the source; None where it is read only once."""
        if self.total is None:
            return None
        step = -(-self.total // CALIBRATED_ON)
        return (record for number, record in enumerate(self.source.records()) if number % step == 0)


def _checked(
    chunks: Iterable[list[Record]], source: Source, kept: KeptColumns, skipped: Skipped
) -> Iterator[list[Record]]:
    """Yield the shards' records; of a stream what cannot be kept is counted, and an id that comes twice is refused."""
    seen = Seen()
    for records in chunks:
        kept.tell_missing(records, source.name, skipped)
        if not source.repeatable:
            _check_ids(source, records, seen)
        yield records


def _filled(index: Index, job: _Job, encode: ShardEncoder, tell: Progress) -> Index:
    """Return the index with every shard of the source, complete; then tell what was passed over."""
    done = number = 0
    for number, records in enumerate(job.chunks, start=1):
        if not index.holds(number - 1, records, job.source.name):
            texts, names = [one.text for one in records], [one.id for one in records]
            vectors = encode(texts, names, partial(_tell_more, tell, done, job.total))
            index = _calibrated(index, job, encode, records)
            if index.ranges is not None:
                _tell_outside(index.ranges.outside(vectors), index)
            index = index.with_shard(number - 1, records, vectors, job.kept)
        done += len(records)
        tell(done, job.total)
    finished = _finished(index, number, job.source.name)
    job.skipped.tell(job.source.name)
    return finished


def _tell_more(tell: Progress, before: int, total: int | None, some: int) -> None:
    tell(before + some, total)


def _calibrated(index: Index, job: _Job, encode: ShardEncoder, records: Sequence[Record]) -> Index:
    """Return the index with the ranges that its int8 vectors are stored by."""
    if index.settings.precision != "int8" or index.ranges is not None:
        return index
    spread = job.spread()
    chosen = list(records if spread is None else spread)
    return replace(index, ranges=Ranges.of(encode([one.text for one in chosen], [one.id for one in chosen])))


def _tell_outside(share: float, index: Index) -> None:
    if share > _TOO_MUCH_OUTSIDE:
        logger.warning(
            "%s: %.1f %% of a shard's numbers lie outside of the ranges that int8 was calibrated on and are cut to "
            "them: its texts are unlike those before. Take float16, or embed anew.",
            index.folder, 100 * share,
        )  # fmt: skip


def _looked_through(source: Source, skipped: Skipped) -> tuple[int | None, KeptColumns | None]:
    """Read a whole source, and return how many texts it has and their kept columns; neither where it is read once."""
    if not source.repeatable:
        return None, None
    total, kept, seen = 0, KeptColumns({name: pa.null() for name in source.kept or ()}), Seen()
    for records in chunks_of(source.records(skipped), _LOOKED_AT):
        total += len(records)
        kept = kept.with_values_of(records)
        _check_ids(source, records, seen)
    return total, kept


def _check_ids(source: Source, records: Sequence[Record], seen: Seen) -> None:
    """Raise a DataError where a text has the id of one before it."""
    new = set(seen.new([one.id for one in records]))
    twice = next((one.id for number, one in enumerate(records) if number not in new), None)
    if twice is not None:
        raise DataError(
            f"{source.name} has two texts with the id {twice!r:.80}, and an id names one; mend it, or name by --id "
            "(id_field=) a field in which every text has its own."
        )


def _width(model: SentenceTransformer, truncate_dim: int | None) -> int:
    width = model.get_embedding_dimension()
    if width is None:
        raise ModelError("The model does not say how wide its vectors are; end it with a pooling module that does.")
    if truncate_dim is None:
        return int(width)
    if not 1 <= truncate_dim <= width:
        raise ConfigError(f"truncate_dim is {truncate_dim}, and the model's vectors have {width} dimensions.")
    return truncate_dim


def _check_settings(side: str, shard_size: int, batch_size: int, precision: str, width: int) -> None:
    check_precision(precision, width)
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
    return index if index.complete else index.finished()


def _verified(folder: Path, settings: Settings, job: _Job) -> Path:
    """Return a folder that is complete and whole, and holds the rows of the source; DataError for any other."""
    index = open_index(folder)
    check_same(index, settings)
    number = 0
    for number, records in enumerate(job.chunks, start=1):
        if not index.holds(number - 1, records, job.source.name):
            raise DataError(
                f"{index.store.named(number - 1)} is not what was written or is not there; run the same embed command "
                "without --verify to mend it."
            )
    if not index.complete:
        raise DataError(f"{folder} is not complete; run the same embed command without --verify to go on.")
    return _finished(index, number, job.source.name).folder
