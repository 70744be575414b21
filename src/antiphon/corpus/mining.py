"""Hard negatives: texts that a model takes for answers, near the query and yet none of its positives.

What reads the same as the query or as one of its positives is never a negative. What is nearly as near as the positive
may be an answer that nobody marked, so a margin keeps away from it (NV-Retriever, arXiv 2407.15831, section 4: at most
95 % of the positive's score). Q queries, K nearest, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from antiphon.corpus.mined_texts import (
    ComparedText,
    EncodedCorpus,
    MinedCorpus,
    PairTexts,
    StoredCorpus,
    stored_width,
    texts_at,
)
from antiphon.corpus.mining_report import MiningReport, Negative, check_report
from antiphon.corpus.mining_settings import MiningSettings
from antiphon.corpus.neighbours import BLOCK, NOTHING, Ids, Nearest, VectorSource, blocks
from antiphon.corpus.rescoring import Rescorer
from antiphon.corpus.seen import Seen
from antiphon.data.pairs import ANCHOR, POSITIVE, Pair, load, negative_columns, texts_of, to_dataset
from antiphon.data.progress_bar import Progress, telling
from antiphon.data.skipped import Skipped
from antiphon.encoding import Compile, Encoder
from antiphon.errors import DataError
from antiphon.model.build import check_embedder

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, SentenceTransformer

_DIGITS = 6
"""Digits of a cosine that count; the rest depends on the companions in a batch and must not order anything."""

logger = logging.getLogger(__name__)


def mine(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    pairs: Dataset | str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    settings: MiningSettings | None = None,
    corpus: Iterable[str] | str | Path | None = None,
    instruction: str | None = None,
    document_instruction: str | None = None,
    cache: str | Path | None = None,
    rescore: CrossEncoder | None = None,
    report: str | Path | None = None,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    strict: bool = False,
    batch_tokens: int | None = None,
    compile: Compile = False,
) -> Dataset:
    r"""Return the pairs, in their order, with negatives that the model mined in place of any they had.

    `pairs` are those of `antiphon.pairs.load`, or a source that it reads, by the map `columns` of anchor, positive and
    negative to its names. Negatives come from `corpus` (texts, a source of them, or a folder that `embed` wrote with
    this model), without it from all pairs' positives and negatives. A source is streamed twice, so memory grows with
    the queries alone. Of a query's positives the least similar sets the margin. A pair with fewer keeps those ('' and
    the column label, as everywhere). The folder `cache` keeps vectors by the model's content: other margins cost no
    encoding, and a run that died goes on. A cross-encoder in `rescore` scores the nearest texts and the positive in
    place of cosines. `report` is a Markdown file. `strict` refuses what a source would pass over. `batch_tokens` and
    `compile` are the Encoder's. `progress` shows a bar (None: in interactive use), or `on_progress` is told.

    Raises DataError for a bad source, an empty corpus, vectors of another model, or a file `report` that cannot be
    written; ModelError for a vector that is NaN or zero.

    Example:
        >>> from pathlib import Path
        >>> import antiphon
        >>> rows = [f"sort a {thing}\tReturn the {thing} in order." for thing in "list file line key set".split()]
        >>> _ = Path("pairs.tsv").write_text("\n".join(["query\tpositive", *rows]))
        >>> mined = antiphon.mine(antiphon.build("nano", max_tokens=32), "pairs.tsv")
        >>> len(mined), "negative_1" in mined.column_names
        (5, True)
    """
    check_embedder(model, "mine")
    chosen = settings or MiningSettings()
    check_report(report)
    table = pairs if not isinstance(pairs, str | Path) else load(pairs, columns=columns, skipped=Skipped(strict=strict))
    kept, encoder = None if cache is None else Path(cache), Encoder(model, budget=batch_tokens, compile=compile)
    source = partial(VectorSource, encoder, cache=kept, width=stored_width(corpus))
    queries, documents = source("query", instruction=instruction), source("document", instruction=document_instruction)
    searched, total = _corpus(table, corpus, documents, strict=strict)
    texts = PairTexts.of(table)
    with telling("mining", progress, on_progress) as tell:
        windows = _nearest(texts, queries, documents, searched, chosen, _Teller(tell, total, texts)).windows(chosen)
    if rescore is not None:
        windows = _rescored(windows, texts, searched, Rescorer(rescore, cache=kept))
    taken = [window.chosen(query, chosen) for query, window in enumerate(windows)]
    rows = _with_negatives(table, texts, taken, searched)
    _tell(rows, chosen)
    if report is not None:
        MiningReport(chosen, rows, texts.row_queries, taken, [one.positive for one in windows]).write(Path(report))
    return to_dataset(rows, "the mined pairs")


def _with_negatives(
    table: Dataset, texts: PairTexts, taken: Sequence[Sequence[Negative]], searched: MinedCorpus
) -> list[Pair]:
    """Return the table's pairs with the texts of what was taken for their queries."""
    words = texts_at(searched, {one.row for negatives in taken for one in negatives})
    return [
        Pair(anchor, positive, tuple(words[one.row] for one in taken[query]))
        for anchor, positive, query in zip(table[ANCHOR], table[POSITIVE], texts.row_queries, strict=True)
    ]


def _corpus(
    table: Dataset, corpus: Iterable[str] | str | Path | None, documents: VectorSource, *, strict: bool
) -> tuple[MinedCorpus, int | None]:
    """Return what is mined, and how many texts that is where it is known; DataError where there is none."""
    if isinstance(corpus, str | Path):
        if stored_width(corpus) is not None:
            stored = StoredCorpus.of(Path(corpus), documents)
            return stored, stored.index.row_count
        skipped = Skipped(strict=strict)
        source = EncodedCorpus(lambda: texts_of(corpus, skipped=skipped), documents)
        if not any(text.strip() for text in source.rows()):
            raise DataError(f"{corpus} has no text to mine; name another.")
        return source, None
    if corpus is None:
        own = (POSITIVE, *negative_columns(table.column_names))
        texts = [text for name in own for text in table[name]]
    else:
        texts = list(corpus)
    if not any(text.strip() for text in texts):
        raise DataError("The corpus has no text to mine; name one with texts, or leave it out.")
    return EncodedCorpus(lambda: texts, documents), len(texts)


class _Teller:
    """Tells how many texts are done."""

    def __init__(self, tell: Progress, documents: int | None, texts: PairTexts) -> None:
        self.tell, self.done = tell, 0
        self.total = None if documents is None else documents + len(texts.queries)

    def __call__(self, number: int) -> None:
        self.done += number
        self.tell(self.done, self.total)


@dataclass(frozen=True)
class _Window:
    """The texts near one query that may become its negatives, nearest first, and what its positive has."""

    rows: Ids
    """Their places in the corpus."""
    scores: npt.NDArray[np.float64]
    positive: float
    """The least of its positives' scores."""

    def chosen(self, query: int, settings: MiningSettings) -> list[Negative]:
        """Return those that the settings take."""
        left = self.scores <= settings.highest(round(self.positive, _DIGITS)) + 10.0**-_DIGITS / 2
        if settings.min_score is not None:
            left &= self.scores >= settings.min_score
        numbers = np.flatnonzero(left)
        if settings.sampling == "random" and len(numbers) > settings.negatives:
            generator = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(query,)))
            numbers = numbers[np.sort(generator.choice(len(numbers), size=settings.negatives, replace=False))]
        return [
            Negative(int(self.rows[n]), float(self.scores[n]), int(n) + settings.range_min)
            for n in numbers[: settings.negatives]
        ]


@dataclass(frozen=True)
class _Found:
    """The K nearest of a corpus to each query."""

    ids_QK: Ids
    """Numbers of distinct documents."""
    cosines_QK: npt.NDArray[np.float32]
    lowest_Q: npt.NDArray[np.float64]
    """The cosine of each query's least similar positive."""
    rows: Ids
    """The place in the corpus of each document."""

    def windows(self, settings: MiningSettings) -> list[_Window]:
        """Return the ranks of every query that are looked at."""
        return [self._window(query, settings) for query in range(len(self.ids_QK))]

    def _window(self, query: int, settings: MiningSettings) -> _Window:
        """Return the ranks of one query that are looked at; of equal cosines the earlier text is the nearer."""
        ids, cosines = self.ids_QK[query], np.round(self.cosines_QK[query].astype(np.float64), _DIGITS)
        order = np.lexsort((ids, -cosines))
        order = order[ids[order] != NOTHING][settings.range_min :]
        return _Window(self.rows[ids[order]], cosines[order], float(self.lowest_Q[query]))


def _nearest(
    texts: PairTexts,
    queries: VectorSource,
    documents: VectorSource,
    corpus: MinedCorpus,
    settings: MiningSettings,
    tell: Callable[[int], None],
) -> _Found:
    queries_QD = np.concatenate([block for _, block in blocks(texts.queries, queries, on_block=tell)])
    nearest = Nearest(queries_QD, settings.range_max, device=documents.encoder.model.device)
    lowest_Q = np.full(len(queries_QD), np.inf)
    missing = dict(texts.originals)
    rows: list[Ids] = []
    first = 0

    def answered(block: Sequence[ComparedText], block_ND: npt.NDArray[np.float32]) -> None:
        asked, numbers = texts.answered(block)
        cosines = np.einsum("nd,nd->n", queries_QD[asked], block_ND[numbers], dtype=np.float64)
        np.minimum.at(lowest_Q, asked, cosines)

    for block, block_ND in corpus.blocks(Seen()):
        answered(block, block_ND)
        nearest.show(block_ND, first, texts.barred(block))
        rows.append(np.asarray([one.row for one in block], dtype=np.int64))
        first += len(block)
        for one in block:
            missing.pop(one.key, None)
        tell(len(block))
    others = [ComparedText(-1, text, key) for key, text in missing.items()]
    for start in range(0, len(others), BLOCK):
        block = others[start : start + BLOCK]
        answered(block, documents([one.text for one in block]))
    found = nearest.found()
    return _Found(found.ids, found.cosines, lowest_Q, np.concatenate(rows))


def _rescored(windows: Sequence[_Window], texts: PairTexts, corpus: MinedCorpus, rescorer: Rescorer) -> list[_Window]:
    """Return the windows with the cross-encoder's scores, best first; equal scores stay as the cosines had them."""
    words = texts_at(corpus, {int(row) for window in windows for row in window.rows})
    positives: list[list[str]] = [[] for _ in texts.queries]
    for key, queries in texts.positives.items():
        for query in queries:
            positives[query].append(texts.originals[key])
    asked = [
        (texts.queries[query], [*own, *(words[int(row)] for row in window.rows)])
        for query, (window, own) in enumerate(zip(windows, positives, strict=True))
    ]
    out = []
    for window, own, scores in zip(windows, positives, rescorer(asked), strict=True):
        rounded = np.round(scores, _DIGITS)
        order = np.argsort(-rounded[len(own) :], kind="stable")
        lowest = float(rounded[: len(own)].min())
        out.append(replace(window, rows=window.rows[order], scores=rounded[len(own) :][order], positive=lowest))
    return out


def _tell(rows: Sequence[Pair], settings: MiningSettings) -> None:
    short = sum(len(pair.negatives) < settings.negatives for pair in rows)
    if short:
        none = sum(not pair.negatives for pair in rows)
        logger.warning(
            "%d of %d pairs have fewer than %d negatives, %d of them none: no more texts are below the margin. "
            "Raise range_max, lower the margins, or mine with a model that tells texts apart.",
            short, len(rows), settings.negatives, none,
        )  # fmt: skip
