"""An index over a Lance table's vectors and words, with its recall against exact search measured when it is built.

The more partitions are looked into, the more of the nearest rows are found. How many are is the least number, of those
tried, that finds the share asked for of stored vectors' ten nearest neighbours, and that for sure: a mean over a few
hundred of them that just reaches it is as often below it over the next few hundred. D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from antiphon.corpus.hits import DIGITS
from antiphon.corpus.index import Index, open_index
from antiphon.corpus.lance_search import INDEX, VectorIndex, among_rows, candidates, nearest_query
from antiphon.corpus.lance_table import LanceTable
from antiphon.corpus.shards import LANCE
from antiphon.data.lance_rows import ROW
from antiphon.errors import ConfigError, DataError, first_line
from antiphon.files import held, reason, write_whole
from antiphon.model.unit_vectors import Vectors

IndexKind = Literal["ivf_rq", "ivf_pq", "ivf_flat"]
INDEX_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
LEAST_ROWS = 5000
"""Fewer are gone through faster than an index is asked."""
_QUERIES, _NEAREST = 300, 10
_SURE = 1.645
"""Standard errors that the mean is above the share asked for: then 95 % of such means are of a share that is there."""
_REFINED = (10, 50, 200)
"""How many times as many rows are compared by their stored vectors, in turn until the recall is reached."""
_STEPS = sorted(factor * 2**power for factor in (1, 3) for power in range(20))
"""Numbers of partitions that are tried."""


def build_index(folder: str | Path, *, kind: IndexKind = "ivf_rq", recall: float = 0.99) -> VectorIndex:
    """Build an index of a Lance table's vectors and one of its words (BM25), and return what the former is.

    ivf_rq keeps a bit a dimension (RaBitQ, arXiv 2405.12497), ivf_pq codes of product quantisation, ivf_flat the
    vectors themselves; binary vectors always take the last. `recall` is the share of the ten nearest to find. Raises
    ConfigError for what is no Lance table, int8 (which LanceDB searches over no index) and too few rows; DataError
    where the table is not complete or the disk is full.
    """
    index = _checked(Path(folder), kind, recall)
    binary = index.settings.precision == "binary"
    chosen: IndexKind = "ivf_flat" if binary else kind
    with held(folder, "index"):
        opened = LanceTable(index.folder).opened()
        partitions = max(1, round(index.row_count**0.5))
        began = time.monotonic()
        try:
            opened.create_index("vector", config=_CONFIGS[chosen]("hamming" if binary else "cosine", partitions))
            seconds = time.monotonic() - began
            opened.create_index("text", config=_words())
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{folder} could not be indexed ({first_line(error):.200}).") from error
        found = _tuned(index, opened, VectorIndex(chosen, index.row_count, partitions, 1, 1, 0.0, 0, seconds), recall)
        try:
            write_whole(index.folder / INDEX, found.to_json())
        except OSError as error:
            raise DataError(f"{index.folder / INDEX} could not be written ({reason(error)}).") from error
    return found


def _checked(folder: Path, kind: str, recall: float) -> Index:
    index = open_index(folder)
    if index.settings.store != LANCE:
        raise ConfigError(f"{folder} holds Parquet, which has no index; embed into a folder that ends in .lance.")
    if kind not in INDEX_KINDS:
        raise ConfigError(f"There is no kind of index {kind!r}; take one of {', '.join(INDEX_KINDS)}.")
    if not 0 < recall <= 1:
        raise ConfigError(f"recall is {recall}; a share above 0, and 1 at most, is wanted.")
    if index.settings.precision == "int8":
        raise ConfigError(
            f"{folder} holds int8 vectors, over which LanceDB builds no index; its search is exact. Embed float16 or "
            "binary to have one."
        )
    if not index.complete:
        raise DataError(f"{folder} is not complete; run the same embed command again to go on, then index.")
    if index.row_count < LEAST_ROWS:
        raise ConfigError(
            f"{folder} has {index.row_count:,} rows; below {LEAST_ROWS:,} exact search is as fast as an index."
        )
    return index


def _tuned(index: Index, opened: Any, built: VectorIndex, wanted: float) -> VectorIndex:
    """Return how the index is asked: with the fewest rows compared, then partitions, that give the recall."""
    queries = _stored_queries(index, opened)
    exact = [_neighbours(index, opened, query_D, row, None) for row, query_D in queries]

    def measured(probes: int, refine: int) -> tuple[VectorIndex, bool]:
        asked = replace(built, probes=probes, refine=refine, queries=len(queries))
        found = [_neighbours(index, opened, query_D, row, asked) for row, query_D in queries]
        shares = [len(set(one) & set(other)) / len(other) for one, other in zip(found, exact, strict=True)]
        recall, doubt = float(np.mean(shares)), float(np.std(shares)) / len(shares) ** 0.5
        return replace(asked, recall=recall), recall - _SURE * doubt >= wanted

    for refine in _REFINED:
        most, enough = measured(built.partitions, refine)
        if enough:
            break
    else:
        return most
    steps = [number for number in _STEPS if number < built.partitions]
    found, low, high = most, 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        tried, enough = measured(steps[middle], most.refine)
        if enough:
            found, high = tried, middle
        else:
            low = middle + 1
    return found


def _stored_queries(index: Index, opened: Any) -> list[tuple[int, Vectors]]:
    """Return rows evenly spread over the table, and their unit vectors (D,)."""
    step = max(1, index.row_count // _QUERIES)
    numbers = range(0, index.row_count, step)
    found = opened.search().where(among_rows(numbers)).select([ROW, "vector"]).limit(2 * _QUERIES).to_arrow()
    return list(zip(found.column(ROW).to_pylist(), _vectors(found, index), strict=True))


def _neighbours(index: Index, opened: Any, query_D: Vectors, own: int, known: VectorIndex | None) -> list[int]:
    """Return the rows nearest to a stored vector, other than its own."""
    precision = index.settings.precision
    limit = candidates(precision, _NEAREST + 1)
    wanted = [ROW, "vector", "_distance"]  # LanceDB warns at every query that does not name the last
    table = nearest_query(opened, query_D, index.codec, known).select(wanted).limit(limit).to_arrow()
    scores = np.round(_vectors(table, index) @ query_D, DIGITS)
    rows = table.column(ROW).to_numpy()
    order = np.lexsort((rows, -scores))
    return [int(row) for row in rows[order] if row != own][:_NEAREST]


def _vectors(table: pa.Table, index: Index) -> Vectors:
    """Return the unit vectors (N, D) of rows."""
    column = table.column("vector").combine_chunks()
    return index.codec.unpack(column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1))


def _words() -> Any:
    from lancedb.index import FTS

    return FTS()


def _rq(distance: str, partitions: int) -> Any:
    from lancedb.index import IvfRq

    return IvfRq(distance_type=distance, num_partitions=partitions)


def _pq(distance: str, partitions: int) -> Any:
    from lancedb.index import IvfPq

    return IvfPq(distance_type=distance, num_partitions=partitions)


def _flat(distance: str, partitions: int) -> Any:
    from lancedb.index import IvfFlat

    return IvfFlat(distance_type=distance, num_partitions=partitions)


_CONFIGS: Mapping[IndexKind, Callable[[str, int], Any]] = {"ivf_rq": _rq, "ivf_pq": _pq, "ivf_flat": _flat}
