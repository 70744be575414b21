"""From a source of texts to a folder of vectors, streamed and resumable; and search in either.

What a folder looks like is index.py's business, how a source is read that of sources.py. N texts, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.corpus.index import MANIFEST, Index, Settings, Vectors, open_index
from antiphon.corpus.makers import check_maker, reopened
from antiphon.corpus.resuming import prepare
from antiphon.data.skipped import Skipped
from antiphon.data.sources import Record, count, read
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.files import held
from antiphon.model import parity
from antiphon.model.fingerprint import fingerprint
from antiphon.model.origin import Origin
from antiphon.model.unit_vectors import unit
from antiphon.text.template import SIDES

Progress = Callable[[int, int | None], None]
"""Told how many texts are done, and how many there are where that is known."""

_WINDOW = 8
"""Batches that are sorted by length together: progress is told as often."""
BATCH_TOKENS = 4096
"""Tokens of a forward pass: fixed, since a run that goes on must pack as the one before it did, to the same bytes."""
_DIGITS = 6
"""Digits of a score that count; the rest depends on the companions in a batch and must not order anything."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """A text that was found, and its cosine to the query."""

    id: str
    text: str
    score: float


def embed(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    source: str | Path,
    out: str | Path,
    *,
    field: str | None = None,
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

    A run that died goes on where it was when it is started again, to the same bytes; so does one whose source has grown
    at its end. A whole source is read once before anything is written, so that a bad line is told first; standard
    input cannot be. `force` throws away what an earlier run left in `out`, never the files of others.
    What is passed over is counted and told in the log at the end; `strict` refuses it. `batch_tokens` are the tokens of
    a forward pass and `compile` compiles the layers; a run that goes on needs both as they were.

    Raises ConfigError for a setting that cannot be used; DataError for a bad source, a disk that is full, or a folder
    that others made or another process writes to; ModelError for a vector that is NaN or zero.
    """
    _check_settings(side, shard_size, batch_size)
    skipped = Skipped(strict=strict)
    total = count(source, field=field, skipped=skipped)
    width = _width(model)
    chunks = _chunks(read(source, field=field, skipped=skipped if total is None else None), shard_size)
    first = next(chunks, [])  # before anything is written: an empty standard input leaves no folder behind
    budget = batch_tokens or BATCH_TOKENS
    origin = Origin.of(model).to_dict()
    settings = Settings(fingerprint(model), side, shard_size, width, budget, compile, origin)
    with held(out, "embed") as place:
        index = prepare(place, settings, force=force)
        tell = on_progress or (lambda done, total: None)
        encoder = Encoder(model, budget=budget, compile=compile)
        done = number = 0
        for number, records in enumerate(chain([first], chunks), start=1):
            if not index.holds(number - 1, records, str(source)):
                vectors: list[Vectors] = []
                for window in _windows(encoder, records, side=side, batch_size=batch_size):
                    vectors.append(window)
                    tell(done + sum(map(len, vectors)), total)
                index = index.with_shard(number - 1, records, np.concatenate(vectors))
            done += len(records)
            tell(done, total)
        skipped.tell(str(source))
        return _finished(index, number, str(source)).folder


def search(  # noqa: PLR0913  (the public surface)
    source: str | Path,
    query: str,
    *,
    model: SentenceTransformer | None = None,
    top: int = 10,
    field: str | None = None,
    verify: bool = False,
    batch_tokens: int | None = None,
    compile: bool = False,
) -> list[Hit]:
    """Return the `top` texts nearest to the query by cosine, best first; of equal scores the earlier text first.

    `source` is a folder that `embed` wrote with this model, or a source of texts, which are then embedded on the way.
    Without a model the one that made the folder is opened again, by what the folder says of it.
    Either is gone through in blocks, so memory does not grow with it. `verify` has every byte of such a folder's shards
    checked before it is trusted; their sizes and footers always are.

    Raises ConfigError for `top` below 1; DataError for an empty query, a bad source or a folder of another model.
    """
    if top < 1:
        raise ConfigError(f"top is {top}; ask for at least 1 text.")
    if not query.strip():
        raise DataError(f"The query is {query!r}, which has no words; say what to search for.")
    is_folder = Path(source).is_dir()
    if verify and not is_folder:
        raise ConfigError(f"{source} is no folder that embed wrote, so there is nothing to verify; leave it out.")
    if model is None:
        model = reopened(Path(source))
    if is_folder:
        blocks = _stored(Path(source), model, field, verify=verify)
    else:
        blocks = _embedded(source, model, field, batch_tokens or BATCH_TOKENS, compile)
    query_D = unit(parity.encode(model, [query], side="query"), ["the query"])[0]
    best: list[Hit] = []
    for records, vectors_ND in blocks:
        scores_N = np.round(vectors_ND @ query_D, _DIGITS)
        first = np.argsort(-scores_N, kind="stable")[:top]
        best += [Hit(records[n].id, records[n].text, float(scores_N[n])) for n in first]
        best = sorted(best, key=lambda hit: -hit.score)[:top]  # stable: the earlier block first
    return best


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


def _chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    iterator = iter(records)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _windows(encoder: Encoder, records: Sequence[Record], *, side: str, batch_size: int) -> Iterator[Vectors]:
    """Yield the unit vectors of some batches at a time; the same records always fall into the same batches."""
    verb = encoder.encode_document if side == "document" else encoder.encode_query
    for window in _chunks(records, batch_size * _WINDOW):
        vectors = verb([record.text for record in window])
        yield unit(vectors, [record.id for record in window])


def _finished(index: Index, shards: int, source: str) -> Index:
    """Return the index with its manifest marked complete; DataError where it has more than the source gave."""
    if shards < len(index.shards):
        raise DataError(
            f"{index.folder} was made from another source: {source} ends after {shards} of its {len(index.shards)} "
            "shards; name another folder by --out, or start anew with --force."
        )
    return index if index.complete else replace(index, complete=True).written()


def _stored(
    folder: Path, model: SentenceTransformer, field: str | None, *, verify: bool
) -> Iterator[tuple[list[Record], Vectors]]:
    index = open_index(folder)
    if field is not None:
        raise ConfigError(f"{folder} holds vectors already, so the field {field!r} has no use; leave the field out.")
    check_maker(index, model)
    if not index.complete:
        rows = sum(shard.rows for shard in index.shards)
        logger.warning("%s is not complete (see %s): only its first %d texts are searched.", folder, MANIFEST, rows)
    return index.blocks(verify=verify)


def _embedded(
    source: str | Path, model: SentenceTransformer, field: str | None, budget: int, compile: bool
) -> Iterator[tuple[list[Record], Vectors]]:
    records = read(source, field=field)
    encoder = Encoder(model, budget=budget, compile=compile)
    batch_size = 32
    for chunk in _chunks(records, batch_size * _WINDOW):
        yield chunk, np.concatenate(list(_windows(encoder, chunk, side="document", batch_size=batch_size)))
