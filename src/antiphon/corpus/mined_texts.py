"""What a mining compares: the queries of the pairs, and the distinct texts of a corpus, block by block.

A corpus may be larger than memory: it is gone through as a stream, once for its vectors and once more for the texts
that became negatives. Of what has been seen eight bytes a text stay, to know one that reads the same again. N texts of
a block, D width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from antiphon.corpus.index import MANIFEST, Index, open_index
from antiphon.corpus.makers import check_maker
from antiphon.corpus.neighbours import BLOCK, Ids, Vectors, VectorSource
from antiphon.corpus.seen import Seen
from antiphon.data.pairs import ANCHOR, POSITIVE, reading
from antiphon.errors import ConfigError, DataError
from antiphon.model.prompts import prompt_of

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ComparedText:
    """A text that is compared with the queries."""

    row: int
    """Its place in the corpus, from 0."""
    text: str
    key: str
    """What it has in common with texts that read the same."""


class MinedCorpus(Protocol):
    """A collection of texts that can be gone through more than once."""

    def blocks(self, seen: Seen) -> Iterator[tuple[list[ComparedText], Vectors]]:
        """Yield the documents that were not seen before, in order, and their unit vectors (N, D)."""
        ...

    def rows(self) -> Iterator[str]:
        """Yield every text, in order."""
        ...


@dataclass(frozen=True)
class EncodedCorpus:
    """Texts that are embedded on the way."""

    read: Callable[[], Iterable[str]]
    vectors: VectorSource

    def blocks(self, seen: Seen) -> Iterator[tuple[list[ComparedText], Vectors]]:
        """Yield distinct documents, BLOCK at a time, and their vectors."""
        rows = distinct(self.rows(), seen)
        while block := list(islice(rows, BLOCK)):
            yield block, self.vectors([one.text for one in block])

    def rows(self) -> Iterator[str]:
        """Yield every text, in order."""
        return iter(self.read())


@dataclass(frozen=True)
class StoredCorpus:
    """Texts whose vectors `embed` has written already."""

    index: Index

    @classmethod
    def of(cls, folder: Path, documents: VectorSource) -> StoredCorpus:
        """Open a folder of vectors.

        Raises DataError where another model made it, where it is not complete, or where it holds queries; ConfigError
        where another instruction is asked for than the one that the vectors were made under.
        """
        index = open_index(folder)
        check_maker(index, documents.encoder.model)
        if not index.complete:
            raise DataError(f"{folder} is not complete; run the same embed command again to go on, then mine.")
        if index.settings.side != "document":
            raise DataError(f"{folder} holds vectors of queries; negatives are documents: embed with --side document.")
        if documents.prompt != prompt_of(documents.encoder.model, "document"):
            raise ConfigError(f"{folder} holds vectors already, which a document instruction cannot change.")
        return cls(index)

    def blocks(self, seen: Seen) -> Iterator[tuple[list[ComparedText], Vectors]]:
        """Yield distinct documents and their vectors, in the blocks of the folder."""
        first = 0
        for records, vectors_ND in self.index.blocks():
            documents = [ComparedText(first + n, one.text, reading(one.text)) for n, one in enumerate(records)]
            first += len(documents)
            new = seen.new([one.key for one in documents])
            if new:
                yield [documents[n] for n in new], vectors_ND[new]

    def rows(self) -> Iterator[str]:
        """Yield every text, in order."""
        return (record.text for records, _ in self.index.blocks() for record in records)


def stored_width(corpus: Iterable[str] | str | Path | None) -> int | None:
    """Return how wide the vectors of a folder are that `embed` wrote; None for any other corpus."""
    is_stored = isinstance(corpus, str | Path) and (Path(corpus) / MANIFEST).exists()
    return open_index(Path(corpus)).settings.dimensions if is_stored else None  # type: ignore[arg-type]


def distinct(texts: Iterable[str], seen: Seen) -> Iterator[ComparedText]:
    """Yield the texts that have any words and were not seen before, the first of those that read the same."""
    documents = (ComparedText(row, text, reading(text)) for row, text in enumerate(texts) if text.strip())
    while block := list(islice(documents, BLOCK)):
        yield from (block[n] for n in seen.new([one.key for one in block]))


def texts_at(corpus: MinedCorpus, rows: Collection[int]) -> dict[int, str]:
    """Return the texts at some places of a corpus, by going through it once more."""
    wanted, last = set(rows), max(rows, default=-1)
    return {row: text for row, text in enumerate(islice(corpus.rows(), last + 1)) if row in wanted}


@dataclass(frozen=True)
class PairTexts:
    """The queries of pairs, each that reads differently once, and which texts are theirs already."""

    queries: Sequence[str]
    row_queries: Sequence[int]
    """The query of each pair."""
    positives: Mapping[str, Sequence[int]]
    """The queries of a positive, by what it reads."""
    originals: Mapping[str, str]
    """The text of a positive, by what it reads."""
    forbidden: Mapping[str, Collection[int]]
    """The queries that a text never is a negative of, by what it reads: it is their positive, or reads as they do."""

    @classmethod
    def of(cls, table: Dataset) -> PairTexts:
        """Take the queries and positives of a table of pairs."""
        numbers: dict[str, int] = {}
        queries: list[str] = []
        row_queries = []
        positives: dict[str, dict[int, None]] = defaultdict(dict)
        originals: dict[str, str] = {}
        for query, positive in zip(table[ANCHOR], table[POSITIVE], strict=True):
            number = numbers.setdefault(reading(query), len(queries))
            if number == len(queries):
                queries.append(query)
            row_queries.append(number)
            key = reading(positive)
            positives[key][number] = None
            originals.setdefault(key, positive)
        forbidden = {key: set(numbers) for key, numbers in positives.items()}
        for key, number in numbers.items():
            forbidden.setdefault(key, set()).add(number)
        return cls(queries, row_queries, {key: tuple(found) for key, found in positives.items()}, originals, forbidden)

    def answered(self, documents: Sequence[ComparedText]) -> tuple[Ids, Ids]:
        """Return the pairs of query and number in the block that are positives."""
        return _columns([(q, n) for n, one in enumerate(documents) for q in self.positives.get(one.key, ())])

    def barred(self, documents: Sequence[ComparedText]) -> tuple[Ids, Ids]:
        """Return the pairs of query and number in the block that may not be mined."""
        return _columns([(q, n) for n, one in enumerate(documents) for q in self.forbidden.get(one.key, ())])


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[Ids, Ids]:
    array = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]
