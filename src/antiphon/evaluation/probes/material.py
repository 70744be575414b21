"""What probes work on: triples, pairs and scored pairs, from a file or from the docstrings of the standard library."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from antiphon.data.cells import text_of, value_of
from antiphon.data.docstrings import DocstringPair, of_standard_library, pairs
from antiphon.data.rows import open_table
from antiphon.errors import ConfigError, DataError
from antiphon.evaluation.local_tasks import find

DOCSTRINGS = "docstrings"
_Item = TypeVar("_Item")
_MOST = 1000
"""Triples, or pairs, that a probe takes by default."""
_FEWEST = 10


@dataclass(frozen=True)
class Triple:
    """A query, a text that belongs to it, and one that does not."""

    query: str
    positive: str
    negative: str


@dataclass(frozen=True)
class Scored:
    """Two sentences and how alike people found them."""

    first: str
    second: str
    gold: float


@dataclass(frozen=True)
class Material:
    """The data of one probe."""

    source: str
    """The file, or "docstrings"."""
    limit: int | None
    seed: int

    @property
    def revision(self) -> str:
        """A hash of what is read."""
        content = repr(_docstrings()).encode() if self.source == DOCSTRINGS else Path(self.source).read_bytes()
        return hashlib.sha256(f"{self.limit} {self.seed} ".encode() + content).hexdigest()[:16]

    def triples(self) -> list[Triple]:
        """Return triples: rows with query, positive and negative.

        Of docstrings: the summary, the paragraph that follows it, and the one that follows another's.

        Raises DataError for a file without such rows.
        """
        if self.source == DOCSTRINGS:
            found = _docstrings()
            shifted = [*found[1:], found[0]]
            every = [
                Triple(one.summary, _opening(one.body), _opening(other.body))
                for one, other in zip(found, shifted, strict=True)
            ]
        else:
            every = [
                Triple(
                    *(text_of(value_of(row, field), row.where, field) for field in ("query", "positive", "negative"))
                )
                for row in open_table(Path(self.source)).rows()
            ]
        if len(every) < 2:
            raise DataError(f"{self.source} has {len(every)} triples; a probe needs at least 2.")
        return self._sampled(every)

    def pairs(self, *, words: int = 1) -> list[tuple[str, str]]:
        """Return (query, text that belongs to it), with texts of at least so many words; of docstrings the whole text.

        Raises DataError where there are too few.
        """
        if self.source == DOCSTRINGS:
            every = [(one.summary, one.body) for one in _docstrings()]
        else:
            every = [(one.query, one.positive) for one in replace(self, limit=sys.maxsize).triples()]
        long = [pair for pair in every if len(pair[1].split()) >= words]
        if len(long) < _FEWEST:
            raise DataError(f"{self.source} has {len(long)} texts of at least {words} words; {_FEWEST} are needed.")
        return self._sampled(long)

    def scored(self) -> list[Scored]:
        """Return scored pairs of an STS file; ConfigError where the source is none."""
        layouts = [] if self.source == DOCSTRINGS else find(self.source)
        if [layout.kind for layout in layouts] != ["STS"]:
            raise ConfigError(
                f"This probe works on scored pairs and {self.source!r} has none; name a .tsv with the header sentence1 "
                "sentence2 score behind it, as in probe:halves=pairs.tsv."
            )
        columns = layouts[0].read(limit=self.limit, seed=self.seed).parts["test"]
        return [Scored(*row) for row in zip(*(columns[n] for n in ("sentence1", "sentence2", "score")), strict=True)]

    def _sampled(self, items: Sequence[_Item]) -> list[_Item]:
        limit = min(self.limit or _MOST, len(items))
        kept = sorted(random.Random(self.seed).sample(range(len(items)), limit))
        return [items[number] for number in kept]


@cache
def _docstrings() -> tuple[DocstringPair, ...]:
    return tuple(pairs(of_standard_library()))


def _opening(body: str) -> str:
    """Return the first paragraph of a docstring's body, which is about as long as a sentence."""
    return " ".join(body.split("\n\n")[0].split())
