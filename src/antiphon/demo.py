"""The whole zero-shot job on data that every Python has: docstrings of its standard library.

A query is the first line of a docstring, its one relevant document the rest of it, and every query searches all
documents. Nothing is trained; the rows differ by template and pooling alone. Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from antiphon.corpus import Hit, unit
from antiphon.docstrings import DocstringPair, harvest, pairs, standard_library
from antiphon.errors import ConfigError
from antiphon.model import build
from antiphon.parity import Vectors, encode
from antiphon.statistics import Interval, bootstrap, ndcg

ROWS = (
    ("classical-write", "mean"),
    ("classical-write", "last"),
    ("echo-rewrite", "mean"),
    ("echo-rewrite", "last"),
    ("eol", "last"),
)
CLASSICAL, ECHO = "classical-write", "echo-rewrite"
QUERY = "wrap text into lines of a given width"
MAX_TOKENS = 128
"""With one copy of the text: the demo is to take minutes on two cores."""
_SHOWN = 5

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """What one template and pooling reached."""

    template: str
    pooling: str
    ndcg: Interval


@dataclass(frozen=True)
class Gain:
    """What echo adds to classical with the same pooling, query by query."""

    pooling: str
    ndcg: Interval


@dataclass(frozen=True)
class Demo:
    """The outcome: rows, the gains of echo, and a search with the best row."""

    pairs: int
    max_tokens: int
    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    query: str
    hits: tuple[Hit, ...]

    @property
    def best(self) -> Row:
        """The row with the highest nDCG."""
        return max(self.rows, key=lambda row: row.ndcg.mean)


def run(
    base: str | Path = "nano",
    *,
    limit: int = 1000,
    query: str = QUERY,
    max_tokens: int = MAX_TOKENS,
    on_step: Callable[[str], None] | None = None,
) -> Demo:
    """Embed the pairs with every row's template and pooling, score the retrieval, and search with the best.

    `limit` pairs are taken evenly from all there are, so the same Python gives the same pairs. `on_step` is told what
    is done next.

    Raises ConfigError for a limit below 2, and what `build` raises for the base.
    """
    if limit < 2:
        raise ConfigError(f"The demo was asked for {limit} pairs; it needs at least 2.")
    tell = on_step or (lambda step: None)
    tell("reading the docstrings of the standard library")
    chosen = evenly(list(pairs(harvest(standard_library()))), limit)
    scores: dict[tuple[str, str], Scores] = {}
    found: dict[tuple[str, str], tuple[Hit, ...]] = {}
    for number, (template, pooling) in enumerate(ROWS, start=1):
        tell(f"{template}, {pooling} ({number} of {len(ROWS)}): embedding {2 * len(chosen):,} texts")
        model = build(base, template, pooling=pooling, max_tokens=max_tokens, dtype="float32")
        names = [pair.name for pair in chosen]
        documents_QD = unit(encode(model, [pair.body for pair in chosen], side="document"), names)
        queries_QD = unit(encode(model, [pair.summary for pair in chosen]), names)
        scores[template, pooling] = ndcg(queries_QD @ documents_QD.T)
        found[template, pooling] = _nearest(unit(encode(model, [query]), ["the query"]), documents_QD, chosen)
    rows = tuple(Row(*key, bootstrap(values)) for key, values in scores.items())
    gains = tuple(
        Gain(pooling, bootstrap(scores[ECHO, pooling] - scores[CLASSICAL, pooling])) for pooling in ("mean", "last")
    )
    best = max(rows, key=lambda row: row.ndcg.mean)
    return Demo(len(chosen), max_tokens, rows, gains, query, found[best.template, best.pooling])


def evenly(items: Sequence[DocstringPair], limit: int) -> list[DocstringPair]:
    """Return at most `limit` items at even distances, so that every part of the library is there."""
    if len(items) <= limit:
        return list(items)
    return [items[n * len(items) // limit] for n in range(limit)]


def _nearest(query_1D: Vectors, documents_QD: Vectors, chosen: Sequence[DocstringPair]) -> tuple[Hit, ...]:
    cosines_Q = documents_QD @ query_1D[0]
    order = np.argsort(-cosines_Q, kind="stable")[:_SHOWN]
    return tuple(Hit(chosen[n].name, chosen[n].summary, float(cosines_Q[n])) for n in order)
