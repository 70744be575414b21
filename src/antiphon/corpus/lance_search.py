"""The rows of a Lance table nearest to a query: by vector, by words, or by both; exact, or over an index.

Scores of vectors are cosines to what is stored, computed here from the rows that LanceDB found, so that a query is
compared in float32 whatever the precision. D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from antiphon.corpus.codec import Codec
from antiphon.corpus.conditions import Condition, sql_of
from antiphon.corpus.hits import DIGITS, Hit
from antiphon.corpus.index import Index
from antiphon.corpus.lance_table import LanceTable
from antiphon.corpus.shards import ROWS_AT_ONCE, unpacked
from antiphon.data.lance_rows import ROW
from antiphon.errors import DataError, first_line
from antiphon.model.unit_vectors import Vectors

Mode = Literal["vector", "text", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
INDEX = "_index.json"
_FUSION = 60
"""Added to a rank before its reciprocal is taken (Cormack and others, 2009, reciprocal rank fusion)."""
_FUSED = 5
"""Times as many texts of each list are fused as are asked for."""
_RESCORED, _RESCORED_LEAST = 20, 400
"""Times as many rows are found by their bits as are asked for, at least so many, and ordered by cosine."""


@dataclass(frozen=True)
class VectorIndex:
    """What index a table has, how it is asked, and what that was measured to give."""

    kind: str
    rows: int
    partitions: int
    probes: int
    """Partitions that are looked into."""
    refine: int
    """Times as many rows are compared by their stored vectors as are asked for."""
    recall: float
    """The share of the ten nearest that it finds."""
    queries: int
    """Stored vectors that it was measured on, none counted as its own neighbour."""
    seconds: float
    """To build it."""

    @classmethod
    def of(cls, folder: Path) -> VectorIndex | None:
        """Read what a folder says; None where it has none. DataError where that is broken."""
        try:
            return cls(**json.loads((folder / INDEX).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{folder / INDEX} cannot be read ({error}); run `antiphon index {folder}` anew."
            ) from error

    def to_json(self) -> bytes:
        """Return what a folder keeps of it."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


@dataclass(frozen=True)
class LanceSearch:
    """A table, and conditions on its rows."""

    index: Index
    conditions: Sequence[Condition]

    def hits(self, mode: Mode, query: str, query_D: Vectors | None, top: int) -> list[Hit]:
        """Return the best rows; `query_D` is a unit vector, or None for a search by words."""
        if mode == "text" or query_D is None:
            return self._by_words(query, top)
        if mode == "vector":
            return self._by_vector(query_D, top)
        return _fused([self._by_vector(query_D, _FUSED * top), self._by_words(query, _FUSED * top)], top)

    def _by_vector(self, query_D: Vectors, top: int) -> list[Hit]:
        opened, known = self._opened, VectorIndex.of(self.index.folder)

        def found(limit: int) -> list[Hit]:
            if self.index.settings.precision == "int8":
                table = self._asked(opened.search(), limit, among_rows(self._scanned(opened, query_D, limit)))
            else:
                wanted = candidates(self.index.settings.precision, limit)
                table = self._asked(nearest_query(opened, query_D, self.index.codec, known), wanted, self._filter)
            scored = []
            for batch in table.to_batches():
                records, vectors_ND = unpacked(batch, self.index.settings.columns, self.index.codec)
                scores_N = np.round(vectors_ND @ query_D, DIGITS)
                rows = batch.column(ROW).to_pylist()
                hits = [
                    Hit(one.id, one.text, float(score), one.fields)
                    for one, score in zip(records, scores_N, strict=True)
                ]
                scored += [(-hit.score, row, hit) for hit, row in zip(hits, rows, strict=True)]
            return [hit for *_, hit in sorted(scored, key=lambda one: one[:2])]

        return self._filtered(found, top)

    def _scanned(self, opened: Any, query_D: Vectors, limit: int) -> list[int]:
        """Return the numbers of the nearest rows, of all that meet the conditions, by what is stored.

        LanceDB compares no int8. A copy in floats to compare would be two or four times as large as the table.
        """
        filtered = self._filter
        scan = opened.search() if filtered is None else opened.search().where(filtered)
        scores, rows = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
        for batch in scan.select([ROW, "vector"]).to_batches(batch_size=ROWS_AT_ONCE):
            column = batch.column("vector")
            stored_NS = column.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), column.type.list_size)
            scores = np.concatenate([scores, np.round(self.index.codec.unpack(stored_NS) @ query_D, DIGITS)])
            rows = np.concatenate([rows, batch.column(ROW).to_numpy()])
            best = np.lexsort((rows, -scores))[:limit]
            scores, rows = scores[best], rows[best]
        return [int(row) for row in rows]

    def _by_words(self, query: str, top: int) -> list[Hit]:
        opened = self._opened
        if not any(one.columns == ["text"] for one in opened.list_indices()):
            raise DataError(
                f"{self.index.folder} has no index of its words; run `antiphon index {self.index.folder}` first."
            )

        def found(limit: int) -> list[Hit]:
            table = self._asked(opened.search(query, query_type="fts", fts_columns="text"), limit, self._filter)
            scores = iter(table.column("_score").to_pylist())
            records = [
                one
                for batch in table.to_batches()
                for one in unpacked(batch, self.index.settings.columns, self.index.codec)[0]
            ]
            return [Hit(one.id, one.text, float(next(scores)), one.fields) for one in records]

        return self._filtered(found, top)

    @cached_property
    def _opened(self) -> Any:
        """LanceDB's table, opened once: what of its index is in memory is there for the next query."""
        return LanceTable(self.index.folder).opened()

    @property
    def _filter(self) -> str | None:
        """The conditions as SQL, as far as it can say them; None where it says nothing."""
        return sql_of(self.conditions, self.index.settings.columns)

    def _asked(self, builder: Any, limit: int, filtered: str | None) -> Any:
        try:
            return (builder if filtered is None else builder.where(filtered, prefilter=True)).limit(limit).to_arrow()
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{self.index.folder} cannot be searched ({first_line(error):.200}).") from error

    def _filtered(self, found: Callable[[int], list[Hit]], top: int) -> list[Hit]:
        """Return the first hits that meet the conditions: SQL cannot say all of them, so more rows are asked for."""
        limit = top
        while True:
            hits = found(limit)
            kept = [hit for hit in hits if all(one.holds(hit) for one in self.conditions)]
            if len(kept) >= top or len(hits) < limit or limit >= self.index.row_count:
                return kept[:top]
            limit *= 4


def candidates(precision: str, top: int) -> int:
    """Return how many rows are asked for, of which the best by cosine are taken."""
    return max(_RESCORED * top, _RESCORED_LEAST) if precision == "binary" else top


def nearest_query(opened: Any, query_D: Vectors, codec: Codec, index: VectorIndex | None) -> Any:
    """Return LanceDB's query for the rows nearest to a unit vector (D,), exact where there is no index."""
    binary = codec.precision == "binary"
    asked: npt.NDArray[Any] = codec.pack(query_D[None])[0] if binary else query_D
    builder = opened.search(asked, vector_column_name="vector").distance_type("hamming" if binary else "cosine")
    if index is None:
        return builder.bypass_vector_index()
    builder = builder.nprobes(index.probes)
    return builder if binary else builder.refine_factor(index.refine)


def among_rows(rows: Sequence[int]) -> str:
    """Return the SQL that names rows by their numbers; none of them where there are none."""
    return f"{ROW} IN ({', '.join(map(str, rows))})" if rows else f"{ROW} < 0"


def _fused(lists: Sequence[Sequence[Hit]], top: int) -> list[Hit]:
    """Return the texts that stand first in the lists, by the sum of their reciprocal ranks, which is their score."""
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for found in lists:
        for rank, hit in enumerate(found, start=1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (_FUSION + rank)
            hits.setdefault(hit.id, hit)
    best: Mapping[str, float] = dict(sorted(scores.items(), key=lambda one: -one[1])[:top])
    return [Hit(id, hits[id].text, score, hits[id].fields) for id, score in best.items()]
