"""Hard negatives: texts that a model takes for answers, near the query and yet none of its positives.

What reads the same as the query or as one of its positives is never a negative. What is nearly as near as the positive
may be an answer that nobody marked, so a margin keeps away from it (NV-Retriever, arXiv 2407.15831, section 4: at most
95 % of the positive's score).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from antiphon.corpus.neighbours import NOTHING, Ids, Nearest, Neighbours, VectorSource, blocks
from antiphon.data.pairs import ANCHOR, POSITIVE, Pair, load, negative_columns, reading, texts_of, to_dataset
from antiphon.data.skipped import Skipped
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

_DIGITS = 6
"""Digits of a cosine that count; the rest depends on the companions in a batch and must not order anything."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """Which of the texts near a query become its negatives."""

    negatives: int = 4
    """The most for each pair."""
    range_min: int = 0
    """How many of the nearest texts, other than positives, are passed over."""
    range_max: int = 100
    """How many of the nearest texts are looked at."""
    relative_margin: float | None = 0.05
    """A negative's cosine is at least this share of the positive's below it; None for no such bound."""
    absolute_margin: float | None = None
    """A negative's cosine is at least this much below the positive's."""
    max_score: float | None = None
    min_score: float | None = None
    sampling: Literal["top", "random"] = "top"
    """Take the nearest of what is left, or draw from it."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise a ConfigError for values that cannot be used, or not together."""
        if self.negatives < 1:
            raise ConfigError(f"negatives is {self.negatives}; ask for at least 1.")
        if self.range_min < 0 or self.range_max - self.range_min < self.negatives:
            raise ConfigError(
                f"Ranks from {self.range_min} to {self.range_max} cannot give {self.negatives} negatives; "
                "raise range_max or lower range_min."
            )
        for name in ("relative_margin", "absolute_margin"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}; a number of at least 0 is wanted, or none.")
        if self.sampling not in ("top", "random"):
            raise ConfigError(f"sampling is {self.sampling!r}; take 'top' or 'random'.")

    def highest(self, positive: float) -> float:
        """Return the highest cosine that a negative may have, beside a positive with this one."""
        bounds = [np.inf if self.max_score is None else self.max_score]
        if self.relative_margin is not None:
            bounds.append(positive - abs(positive) * self.relative_margin)
        if self.absolute_margin is not None:
            bounds.append(positive - self.absolute_margin)
        return min(bounds)


def mine(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    pairs: Dataset | str | Path,
    *,
    settings: MiningSettings | None = None,
    corpus: Iterable[str] | str | Path | None = None,
    instruction: str | None = None,
    document_instruction: str | None = None,
    cache: str | Path | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    strict: bool = False,
    batch_tokens: int | None = None,
    compile: bool = False,
) -> Dataset:
    """Return the pairs, in their order, with negatives that the model mined in place of any they had.

    `pairs` are those of `antiphon.pairs.load`, or a source that it reads. Negatives come from `corpus` (texts, or a
    source of them), without it from the positives and negatives of all pairs. Of a query's positives the least similar
    sets the margin. A pair for which fewer are found keeps those ('' and the column label, as everywhere); none is
    dropped. Vectors are kept in the folder `cache`, by the model's fingerprint, so that other margins cost no encoding.
    What is passed over in a source is counted and told in the log; `strict` refuses it. `batch_tokens` and `compile`
    are the Encoder's.

    Raises DataError for a bad source or an empty corpus, ModelError for a vector that is NaN or zero.
    """
    chosen = settings or MiningSettings()
    table = pairs if not isinstance(pairs, str | Path) else load(pairs, skipped=Skipped(strict=strict))
    texts = _Texts.of(
        table, texts_of(corpus, skipped=Skipped(strict=strict)) if isinstance(corpus, str | Path) else corpus
    )
    kept = None if cache is None else Path(cache)
    encoder = Encoder(model, budget=batch_tokens, compile=compile)
    queries = VectorSource(encoder, "query", instruction=instruction, cache=kept)
    documents = VectorSource(encoder, "document", instruction=document_instruction, cache=kept)
    found, positives_Q = _nearest(texts, queries, documents, chosen.range_max, on_progress)
    taken = [_chosen(found, query, float(positives_Q[query]), chosen) for query in range(len(texts.queries))]
    rows = [
        Pair(anchor, positive, tuple(texts.documents[number] for number in taken[query]))
        for anchor, positive, query in zip(table[ANCHOR], table[POSITIVE], texts.row_queries, strict=True)
    ]
    _tell(rows, chosen)
    return to_dataset(rows, "the mined pairs")


@dataclass(frozen=True)
class _Texts:
    """The texts of a mining, each that reads differently once, by number."""

    queries: Sequence[str]
    row_queries: Sequence[int]
    """The query of each pair."""
    documents: Sequence[str]
    """Those to mine from, then positives that are not among them."""
    candidates: int
    """How many documents may be mined."""
    positives: tuple[Ids, Ids]
    """Numbers of query and document of every positive."""
    forbidden: tuple[Ids, Ids]
    """Numbers of query and document that read the same, and the positives."""

    @classmethod
    def of(cls, table: Dataset, corpus: Iterable[str] | None) -> _Texts:
        own = [name for name in (POSITIVE, *negative_columns(table.column_names))]
        if corpus is None:
            given: Iterable[str] = (text for name in own for text in table[name])
        else:
            given = corpus
        documents = _Numbers(text for text in given if text.strip())
        candidates = len(documents.texts)
        if not candidates:
            raise DataError("The corpus has no text to mine; name one with texts, or leave it out.")
        queries = _Numbers(())
        row_queries = [queries.number(text) for text in table[ANCHOR]]
        row_positives = [documents.number(text) for text in table[POSITIVE]]
        positives = sorted(set(zip(row_queries, row_positives, strict=True)))
        same = [(n, documents.numbers[key]) for key, n in queries.numbers.items() if key in documents.numbers]
        return cls(
            queries=queries.texts,
            row_queries=row_queries,
            documents=documents.texts,
            candidates=candidates,
            positives=_columns(positives),
            forbidden=_columns(sorted({*positives, *same})),
        )


class _Numbers:
    """Numbers texts in the order in which they come; those that read the same share one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.numbers: dict[str, int] = {}
        self.texts: list[str] = []
        for text in texts:
            self.number(text)

    def number(self, text: str) -> int:
        key = reading(text)
        number = self.numbers.setdefault(key, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[Ids, Ids]:
    array = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _nearest(
    texts: _Texts,
    queries: VectorSource,
    documents: VectorSource,
    most: int,
    on_progress: Callable[[int, int | None], None] | None,
) -> tuple[Neighbours, npt.NDArray[np.float64]]:
    """Return the nearest candidates of each query, and the cosine of its least similar positive."""
    done, total = 0, len(texts.queries) + len(texts.documents)

    def tell(number: int) -> None:
        nonlocal done
        done += number
        if on_progress is not None:
            on_progress(done, total)

    queries_QD = np.concatenate([block for _, block in blocks(texts.queries, queries, on_block=tell)])
    nearest = Nearest(queries_QD, most, device=documents.encoder.model.device)
    lowest_Q = np.full(len(queries_QD), np.inf)
    for first, block_ND in blocks(texts.documents, documents, on_block=tell):
        rows, numbers = _within(texts.positives, first, len(block_ND))
        cosines = np.einsum("nd,nd->n", queries_QD[rows], block_ND[numbers], dtype=np.float64)
        np.minimum.at(lowest_Q, rows, cosines)
        mined_ND = block_ND[: max(texts.candidates - first, 0)]
        if len(mined_ND):
            nearest.show(mined_ND, first, _within(texts.forbidden, first, len(mined_ND)))
    return nearest.found(), lowest_Q


def _within(pairs: tuple[Ids, Ids], first: int, size: int) -> tuple[Ids, Ids]:
    """Return the pairs whose document is in a block, its number counted from the block's first."""
    here = (pairs[1] >= first) & (pairs[1] < first + size)
    return pairs[0][here], pairs[1][here] - first


def _chosen(found: Neighbours, query: int, positive: float, settings: MiningSettings) -> list[int]:
    ids, cosines = found.ids[query], np.round(found.cosines[query].astype(np.float64), _DIGITS)
    order = np.lexsort((ids, -cosines))  # of equal cosines the earlier text
    order = order[ids[order] != NOTHING][settings.range_min :]
    left = cosines[order] <= settings.highest(round(positive, _DIGITS)) + 10.0**-_DIGITS / 2
    if settings.min_score is not None:
        left &= cosines[order] >= settings.min_score
    order = order[left]
    if settings.sampling == "random" and len(order) > settings.negatives:
        generator = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(query,)))
        order = order[np.sort(generator.choice(len(order), size=settings.negatives, replace=False))]
    return [int(number) for number in ids[order[: settings.negatives]]]


def _tell(rows: Sequence[Pair], settings: MiningSettings) -> None:
    short = sum(len(pair.negatives) < settings.negatives for pair in rows)
    if short:
        none = sum(not pair.negatives for pair in rows)
        logger.warning(
            "%d of %d pairs have fewer than %d negatives, %d of them none: no more texts are below the margin. "
            "Raise range_max, lower the margins, or mine with a model that tells texts apart.",
            short, len(rows), settings.negatives, none,
        )  # fmt: skip
