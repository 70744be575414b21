"""The texts nearest to a query, in a folder of vectors or in a source that is embedded on the way. N texts, D width."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.corpus.codec import cut
from antiphon.corpus.conditions import parsed
from antiphon.corpus.hits import DIGITS, Hit
from antiphon.corpus.index import MANIFEST, Index, open_index
from antiphon.corpus.lance_search import MODES, LanceSearch, Mode, VectorIndex
from antiphon.corpus.makers import check_maker, reopened
from antiphon.corpus.shards import LANCE
from antiphon.corpus.windows import BATCH_TOKENS, WINDOW, chunks_of, windows
from antiphon.data.lance_rows import ENDING
from antiphon.data.sources import Source, TextSource, open_source
from antiphon.data.text_columns import Record
from antiphon.encoding import Compile, Encoder
from antiphon.errors import ConfigError, DataError
from antiphon.model import parity
from antiphon.model.build import check_embedder
from antiphon.model.unit_vectors import Vectors, unit

_BATCH_SIZE = 32
INDEX_FROM = 100_000
"""Rows from which on a Lance table without an index says that one would be faster."""

logger = logging.getLogger(__name__)


def search(  # noqa: PLR0913  (the public surface)
    source: TextSource,
    query: str,
    *,
    model: SentenceTransformer | None = None,
    top: int = 10,
    where: str | Sequence[str] = (),
    mode: Mode = "vector",
    field: str | Sequence[str] | None = None,
    id_field: str | None = None,
    verify: bool = False,
    batch_tokens: int | None = None,
    compile: Compile = False,
) -> list[Hit]:
    """Return the `top` texts nearest to the query by cosine, best first; of equal scores the earlier text first.

    `source` is a folder that `embed` wrote with this model, or a source of texts, which are then embedded on the way.
    Without a model the one that made the folder is opened again, by what the folder says of it. `where` leaves texts
    out: one or more conditions on what is kept beside them, such as "year>=2019" or "lang=en", all of which must hold.
    `mode` is vector, or of a Lance table text (words, by BM25) or hybrid (both, by their ranks); such a table is asked
    over its index where `antiphon index` made one. Everything else is gone through in blocks, so memory does not grow
    with it. `verify` has every byte of such a folder's shards checked before it is trusted; their sizes and footers
    always are.

    Raises ConfigError for `top` below 1 and for a condition on a field that is not there; DataError for an empty query,
    a bad source or a folder of another model.

    Example:
        >>> import antiphon
        >>> model, texts = antiphon.build("nano"), ["sort a list", "open a file"]
        >>> [hit.text for hit in antiphon.search(texts, "open a file", model=model, top=1)]
        ['open a file']
    """
    _check_asked(query, top, model)
    folder = _folder(source, verify=verify, asked=field or id_field)
    found: _Found = (
        _Embedded(open_source(source, field=field, id_field=id_field), batch_tokens or BATCH_TOKENS, compile)
        if folder is None
        else _Stored(folder, verify)
    )
    conditions = parsed(where, found.kept)
    table = _lance_table(folder, mode, verify=verify)
    if table is not None and mode == "text":
        return LanceSearch(table, conditions).hits(mode, query, None, top)
    if model is None:
        model = reopened(Path(found.name))
    query_D = unit(parity.encode(model, [query], side="query"), ["the query"])[0]
    if table is not None:
        check_maker(table, model)
        return LanceSearch(table, conditions).hits(mode, query, cut(query_D[None], table.settings.dimensions)[0], top)
    best: list[Hit] = []
    for records, vectors_ND in found.blocks(model):
        query_D = cut(query_D[None], vectors_ND.shape[1])[0]
        scores_N = np.round(vectors_ND @ query_D, DIGITS)
        rows = [n for n, record in enumerate(records) if all(one.holds(record) for one in conditions)]
        first = sorted(rows, key=lambda n: -scores_N[n])[:top]  # stable, as is the next: the earlier text first
        best += [Hit(records[n].id, records[n].text, float(scores_N[n]), records[n].fields) for n in first]
        best = sorted(best, key=lambda hit: -hit.score)[:top]
    return best


def _check_asked(query: str, top: int, model: object) -> None:
    if model is not None:
        check_embedder(model, "search")
    if top < 1:
        raise ConfigError(f"top is {top}; ask for at least 1 text.")
    if not query.strip():
        raise DataError(f"The query is {query!r}, which has no words; say what to search for.")


def _folder(source: TextSource, *, verify: bool, asked: str | Sequence[str] | None) -> Path | None:
    """Return the folder of vectors that a source is, None for texts; ConfigError for what has no use there."""
    folder = Path(source) if isinstance(source, str | Path) and Path(source).is_dir() else None
    if folder is None and verify:
        raise ConfigError(f"{source} is no folder that embed wrote, so there is nothing to verify; leave it out.")
    if folder is not None and asked is not None:
        raise ConfigError(f"{folder} holds vectors already, so the field {asked!r} has no use; leave the field out.")
    return folder


def _lance_table(folder: Path | None, mode: Mode, *, verify: bool) -> Index | None:
    """Return the Lance table that is asked by LanceDB; None for what is gone through instead.

    Raises ConfigError for a mode that there is not, or not there.
    """
    if mode not in MODES:
        raise ConfigError(f"There is no mode {mode!r}; take one of {', '.join(MODES)}.")
    index = None if folder is None else open_index(folder)
    if index is None or index.settings.store != LANCE:
        if mode != "vector":
            raise ConfigError(f"A search by words needs a Lance table; embed into a folder that ends in {ENDING}.")
        return None
    if mode == "vector" and verify:
        return None
    if verify:
        raise ConfigError("verify reads all rows, and a search by words none; search by vector, or leave it out.")
    _tell_size(index)
    return index


def _tell_size(index: Index) -> None:
    if not index.complete:
        logger.warning("%s is not complete: only its first %d texts are searched.", index.folder, index.row_count)
    elif index.row_count >= INDEX_FROM and VectorIndex.of(index.folder) is None:
        logger.warning(
            "%s has %s rows and no index, so all are compared; `antiphon index %s` makes one.",
            index.folder, f"{index.row_count:,}", index.folder,
        )  # fmt: skip


class _Found(Protocol):
    """Texts and their vectors, wherever they are."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def kept(self) -> Sequence[str] | None:
        """The fields beside every text; None where they are not known beforehand."""
        ...

    def blocks(self, model: SentenceTransformer) -> Iterator[tuple[list[Record], Vectors]]:
        """Yield records and their (N, D) vectors."""
        ...


@dataclass(frozen=True)
class _Stored:
    """A folder that embed wrote."""

    folder: Path
    verify: bool

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def kept(self) -> Sequence[str]:
        return tuple(open_index(self.folder).settings.columns)

    def blocks(self, model: SentenceTransformer) -> Iterator[tuple[list[Record], Vectors]]:
        index = open_index(self.folder)
        check_maker(index, model)
        if not index.complete:
            rows = sum(shard.rows for shard in index.shards)
            logger.warning(
                "%s is not complete (see %s): only its first %d texts are searched.", self.folder, MANIFEST, rows
            )
        return index.blocks(verify=self.verify)


@dataclass(frozen=True)
class _Embedded:
    """A source of texts."""

    source: Source
    budget: int
    compile: Compile

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def kept(self) -> Sequence[str] | None:
        return self.source.kept

    def blocks(self, model: SentenceTransformer) -> Iterator[tuple[list[Record], Vectors]]:
        encoder = Encoder(model, budget=self.budget, compile=self.compile)
        for chunk in chunks_of(self.source.records(), _BATCH_SIZE * WINDOW):
            texts, names = [one.text for one in chunk], [one.id for one in chunk]
            yield chunk, np.concatenate(list(windows(encoder, texts, names, side="document", batch_size=_BATCH_SIZE)))
