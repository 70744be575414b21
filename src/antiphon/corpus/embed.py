"""From a source of texts to a folder of vectors, streamed and resumable.

What a folder looks like is index.py's business, how a source is read that of sources.py. N texts, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon.corpus.codec import Precision, Ranges, check_precision, kept_width
from antiphon.corpus.index import Index, open_index
from antiphon.corpus.job import CorpusJob, Work
from antiphon.corpus.ray_cluster import Engine, RaySettings, settings_of
from antiphon.corpus.ray_engine import ray_encoder
from antiphon.corpus.resuming import check_same, prepare
from antiphon.corpus.shards import LANCE, PARQUET, FolderSettings
from antiphon.corpus.windows import BATCH_TOKENS, EncodeSettings
from antiphon.data.lance_rows import is_lance
from antiphon.data.progress_bar import Progress, telling
from antiphon.data.skipped import Skipped
from antiphon.data.sources import TextSource, open_source
from antiphon.data.text_columns import Record
from antiphon.errors import ConfigError, DataError
from antiphon.files import held
from antiphon.model.build import check_embedder
from antiphon.model.fingerprint import fingerprint
from antiphon.model.origin import Origin
from antiphon.model.unit_vectors import Vectors
from antiphon.text.template import SIDES, Side

SHARD_SIZES = {PARQUET: 1024, LANCE: 8192}
"""Texts in a shard. A Lance table keeps a version for every shard until it is complete, so its shards are larger."""
_TOO_MUCH_OUTSIDE = 0.01
Encode = Callable[..., Vectors]
"""Texts, their ids and who is told of progress to unit vectors: a `ShardEncoder`, or Ray's workers."""

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
    engine: Engine | RaySettings = "local",
) -> Path:
    """Write the unit vectors of a source to the folder `out`, and return it: Parquet, or Lance where it ends in .lance.

    `source` is what data/sources.py reads. The text is in `field` (several are joined by a space; found by itself, a
    title before it, without it), the id in `id_field` or `id`; the columns in `keep`, without it all others, stand
    beside it. Of a vector the first `truncate_dim` dimensions are kept, in `precision` (see corpus/codec.py).

    A run that died goes on where it was when it is started again, to the same rows; so does one whose source has grown
    at its end. A whole source is read once before anything is written, so that a bad line is told first; standard
    input and iterators cannot be, and the kept columns of these are those of the first shard. `force` throws away what
    an earlier run left in `out`, never the files of others. `verify` writes nothing: it reads every byte of a complete
    `out` and compares its rows with the source. What is passed over is counted and told at the end; `strict` refuses
    it. `batch_tokens` are the tokens of a forward pass and `compile` compiles the layers; a run that goes on needs both
    as they were. `engine` is "local", this process, or "ray", Ray Data's workers (`RaySettings`), to the same rows.
    `progress` shows a bar, without it in interactive use only; `on_progress` takes its place.

    Raises ConfigError for a setting that cannot be used; DataError for a bad source, two texts of one id, a full disk,
    or a folder that others made, that is in use or fails `verify`; ModelError for a vector that is NaN or zero.

    Example:
        >>> import antiphon
        >>> antiphon.embed(antiphon.build("nano"), ["sort a list", "open a file"], "vectors").name
        'vectors'
    """
    check_embedder(model, "embed")
    store, skipped = LANCE if is_lance(Path(out)) else PARQUET, Skipped(strict=strict)
    size = SHARD_SIZES[store] if shard_size is None else shard_size
    width = kept_width(model.get_embedding_dimension(), truncate_dim)
    workers = _checked(side, size, batch_size, precision, width, engine)
    job = CorpusJob.of(open_source(source, field=field, id_field=id_field, keep=keep, skipped=skipped), size, skipped)
    settings = FolderSettings(fingerprint(model), side, size, width, batch_tokens or BATCH_TOKENS, compile,
                              Origin.of(model).to_dict(), job.kept.described, precision, store)  # fmt: skip
    if verify:
        return _verified(Path(out), settings, job)
    with held(out, "embed") as place, telling("embedding", progress, on_progress) as tell:
        index = prepare(place, settings, force=force)
        with _filling(index, job, model, batch_size, workers) as filling:
            return _filled(filling, job, tell).folder


@dataclass(frozen=True)
class _Filling:
    """An index and what gives its shards their vectors."""

    index: Index
    encode: Encode
    there: Container[int] | None = None
    """The shards that are there, where that was looked up before."""


@contextmanager
def _filling(
    index: Index, job: CorpusJob, model: SentenceTransformer, batch_size: int, workers: RaySettings | None
) -> Iterator[_Filling]:
    """Give what fills an index: this process, or Ray's workers, which read by themselves what is not there yet."""
    made = index.settings
    encoding = EncodeSettings(made.side, batch_size, made.dimensions, made.batch_tokens, made.compile)
    if workers is None:
        yield _Filling(index, encoding.encoder(model))
        return
    if job.total is None:
        raise ConfigError(
            f"{job.source.name} is read only once, and Ray's workers read it by themselves; write it to a file, or "
            "take the engine local."
        )
    there = _there(index, job)
    work = Work(job.source, job.shard_size, job.total, there, _to_calibrate(index))
    if len(there) == work.shards:
        yield _Filling(index, encoding.encoder(model), there)
        return
    with ray_encoder(model, encoding, work, workers) as encode:
        yield _Filling(index, encode, there)


def _filled(filling: _Filling, job: CorpusJob, tell: Progress) -> Index:
    """Return the index with every shard of the source, complete; then tell what was passed over."""
    index, encode, there = filling.index, filling.encode, filling.there
    done = number = 0
    for number, records in enumerate(job.chunks):
        if not (index.holds(number, records, job.source.name) if there is None else number in there):
            index = _calibrated(index, job, encode, records)
            texts, names = [one.text for one in records], [one.id for one in records]
            vectors = encode(texts, names, partial(_tell_more, tell, done, job.total))
            if index.ranges is not None:
                _tell_outside(index.ranges.outside(vectors), index)
            index = index.with_shard(number, records, vectors, job.kept)
        done += len(records)
        tell(done, job.total)
    finished = _finished(index, number + 1, job.source.name)
    job.skipped.tell(job.source.name)
    return finished


def _there(index: Index, job: CorpusJob) -> frozenset[int]:
    """Return the numbers of the shards that are there and stay."""
    there = set[int]()
    for number, records in zip(range(len(index.shards)), job.again(), strict=False):
        if index.holds(number, records, job.source.name):
            there.add(number)
        elif not index.store.keeps_later:
            break
    return frozenset(there)


def _tell_more(tell: Progress, before: int, total: int | None, some: int) -> None:
    tell(before + some, total)


def _calibrated(index: Index, job: CorpusJob, encode: Encode, records: list[Record]) -> Index:
    """Return the index with the ranges that its int8 vectors are stored by."""
    if not _to_calibrate(index):
        return index
    chosen = job.calibration(records)
    return replace(index, ranges=Ranges.of(encode([one.text for one in chosen], [one.id for one in chosen])))


def _to_calibrate(index: Index) -> bool:
    return index.settings.precision == "int8" and index.ranges is None


def _tell_outside(share: float, index: Index) -> None:
    if share > _TOO_MUCH_OUTSIDE:
        logger.warning(
            "%s: %.1f %% of a shard's numbers lie outside of the ranges that int8 was calibrated on and are cut to "
            "them: its texts are unlike those before. Take float16, or embed anew.",
            index.folder, 100 * share,
        )  # fmt: skip


def _checked(
    side: str, shard_size: int, batch_size: int, precision: str, width: int, engine: Engine | RaySettings
) -> RaySettings | None:
    """Return the settings of Ray's workers; ConfigError for a setting that cannot be used."""
    check_precision(precision, width)
    if side not in SIDES:
        raise ConfigError(f"There is no side {side!r}; take one of {', '.join(SIDES)}.")
    for name, value in (("shard_size", shard_size), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; a whole number of at least 1 is wanted.")
    return settings_of(engine)


def _finished(index: Index, shards: int, source: str) -> Index:
    """Return the index with its manifest marked complete; DataError where it has more than the source gave."""
    if shards < len(index.shards):
        raise DataError(
            f"{index.folder} was made from another source: {source} ends after {shards} of its {len(index.shards)} "
            "shards; name another folder by --out, or start anew with --force."
        )
    return index if index.complete else index.finished()


def _verified(folder: Path, settings: FolderSettings, job: CorpusJob) -> Path:
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
