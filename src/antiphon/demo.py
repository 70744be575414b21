"""The whole job on data that every Python has: zero-shot, then trained three ways, on docstrings.

A query is the first line of a docstring, its one relevant document the rest of it, and every query searches all
documents. Training reads the docstrings of installed packages, the test those of the standard library. Q queries,
D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from antiphon import nano
from antiphon.corpus.hits import Hit
from antiphon.data.docstrings import DocstringPair, evenly, of_standard_library, pairs
from antiphon.encoding import Encoder
from antiphon.encoding.calibrate import calibrate
from antiphon.errors import ConfigError
from antiphon.evaluation.statistics import Interval, bootstrap, ndcg
from antiphon.model.build import build
from antiphon.model.checkpoint import load
from antiphon.model.parity import Vectors
from antiphon.model.unit_vectors import unit
from antiphon.modules import PoolingMode
from antiphon.training import train
from antiphon.training.losses import Information, information
from antiphon.training.reconstruct import reconstruct

ZERO_SHOT: tuple[tuple[str, PoolingMode], ...] = (
    ("classical-write", "mean"),
    ("classical-write", "last"),
    ("echo-rewrite", "mean"),
    ("echo-rewrite", "last"),
    ("eol", "last"),
)
CALIBRATED = (ZERO_SHOT[0], ZERO_SHOT[2])
"""Those that are standardised too, by docstrings that no pair is made of."""
TRAINED = ("baseline", "anchor", "anchor-echo")
"""Recipes of recipes/nano: as many steps each, all contrastive or with Stage I first."""
GAINS = (
    ("echo minus classical, zero-shot, mean", "echo-rewrite, mean", "classical-write, mean"),
    ("echo minus classical, zero-shot, last", "echo-rewrite, last", "classical-write, last"),
    ("calibrated echo minus echo, zero-shot, mean", "echo-rewrite, mean, calibrated", "echo-rewrite, mean"),
    ("anchor minus baseline", "anchor", "baseline"),
    ("anchor-echo minus baseline", "anchor-echo", "baseline"),
)
QUERY = "wrap text into lines of a given width"
MAX_TOKENS = 128
"""With one copy of the text: the demo is to take minutes on two cores."""
SEARCHED = ("classical-write, mean", "echo-rewrite, mean", "echo-rewrite, mean, calibrated")
"""Rows whose search is shown one beside the other."""
_SHOWN = 5
_FITTED = 300
_REMEMBERED = 3
_PROBED = 100

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DemoResult:
    """What one way to make vectors reached."""

    name: str
    ndcg: Interval


@dataclass(frozen=True)
class QueryGain:
    """What one row has over another, query by query."""

    name: str
    ndcg: Interval


@dataclass(frozen=True)
class Memory:
    """What Stage I taught the vectors to remember: how much, and in words."""

    before: Information
    """Of the pairs, under the base."""
    after: Information
    """The same after Stage I."""
    decoded: tuple[tuple[str, str], ...]
    """Queries, and what is decoded from their vectors."""


@dataclass(frozen=True)
class Demo:
    """The outcome: rows, gains, a search with the best row and some others, and what Stage I remembers."""

    pairs: int
    max_tokens: int
    rows: tuple[DemoResult, ...]
    gains: tuple[QueryGain, ...]
    query: str
    hits: tuple[Hit, ...]
    searches: Mapping[str, tuple[Hit, ...]]
    """The same search with the rows of SEARCHED."""
    memory: Memory | None

    @property
    def best(self) -> DemoResult:
        """The row with the highest nDCG."""
        return max(self.rows, key=lambda row: row.ndcg.mean)


def run(
    base: str | Path = "nano",
    *,
    limit: int = 1000,
    query: str = QUERY,
    max_tokens: int = MAX_TOKENS,
    runs: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Demo:
    """Embed held-out pairs with every row's model, score the retrieval, and search with the best.

    `limit` pairs are taken evenly from all there are, so the same Python gives the same pairs. Models are trained into
    the folder `runs`, and nothing is without it; `overrides` are settings of their recipes. `on_step` is told what is
    done next.

    Raises ConfigError for a limit below 2, ModelError where the Encoder is off for a model that it supports, and what
    `build` and `train` raise.
    """
    if limit < 2:
        raise ConfigError(f"The demo was asked for {limit} pairs; it needs at least 2.")
    tell = on_step or (lambda step: None)
    tell("reading the docstrings of the standard library")
    docstrings = of_standard_library()
    chosen = evenly(list(pairs(docstrings)), limit)
    names = [pair.name for pair in chosen]
    searched = set(names)
    others = evenly([one.text for one in docstrings if one.name not in searched], _FITTED)
    scores: dict[str, Scores] = {}
    found: dict[str, tuple[Hit, ...]] = {}

    def score(name: str, model: SentenceTransformer) -> None:
        encoder = Encoder(model).require_fast()
        documents_QD = unit(encoder.encode_document([pair.body for pair in chosen]), names)
        queries_QD = unit(encoder.encode_query([pair.summary for pair in chosen]), names)
        scores[name] = ndcg(queries_QD @ documents_QD.T)
        found[name] = _nearest(unit(encoder.encode_query([query]), ["the query"]), documents_QD, chosen)

    for number, (template, pooling) in enumerate(ZERO_SHOT, start=1):
        tell(f"{template}, {pooling} ({number} of {len(ZERO_SHOT)}): embedding {2 * len(chosen):,} texts")
        model = build(base, template, pooling=pooling, max_tokens=max_tokens, dtype="float32")
        score(f"{template}, {pooling}", model)
        if (template, pooling) in CALIBRATED:
            score(f"{template}, {pooling}, calibrated", calibrate(model, others))
    memory = None
    for name in TRAINED if runs is not None else ():
        assert runs is not None  # the line above
        changes = {"model.base": str(base), **(overrides or {}), "out": str(runs / name)}
        train(nano.recipe_file(name), overrides=changes, resume=True, on_step=tell)
        score(name, load(runs / name))
        if name == "anchor":
            tell("looking at what Stage I remembers")
            memory = _memory(base, runs / name / "stages" / "1-reconstruction" / "model", chosen)
    rows = tuple(DemoResult(name, bootstrap(values)) for name, values in scores.items())
    gains = tuple(
        QueryGain(name, bootstrap(scores[a] - scores[b])) for name, a, b in GAINS if a in scores and b in scores
    )
    best = max(rows, key=lambda row: row.ndcg.mean)
    searches = {name: found[name] for name in SEARCHED}
    return Demo(len(chosen), max_tokens, rows, gains, query, found[best.name], searches, memory)


def _memory(base: str | Path, stage_one: Path, chosen: Sequence[DocstringPair]) -> Memory:
    model = load(stage_one)
    untrained = build(base, "classical", pooling="last", max_tokens=model.max_seq_length or MAX_TOKENS, dtype="float32")
    probed = [(pair.summary, pair.body) for pair in evenly(chosen, _PROBED)]
    queries = [pair.summary for pair in evenly(chosen, _REMEMBERED)]
    decoded = tuple((query, reconstruct(model, query, max_tokens=40)) for query in queries)
    return Memory(information(untrained, probed), information(model, probed), decoded)


def _nearest(query_1D: Vectors, documents_QD: Vectors, chosen: Sequence[DocstringPair]) -> tuple[Hit, ...]:
    cosines_Q = documents_QD @ query_1D[0]
    order = np.argsort(-cosines_Q, kind="stable")[:_SHOWN]
    return tuple(Hit(chosen[n].name, chosen[n].summary, float(cosines_Q[n])) for n in order)
