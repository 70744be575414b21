"""Which training pairs hold a text of an evaluation set, word for word or nearly so.

Two texts are compared as sets of words, without case, punctuation and the forms that Unicode has for one character.
The comparison is exact, not sketched: sets that are alike share one of their rarest words, so only texts that do are
compared (prefix filtering; Chaudhuri, Ganti and Kaushik 2006).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from antiphon.data.pairs.tables import LABEL
from antiphon.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

NEAR = 0.8
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts that put no space between words: a character each
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
_BATCH = 1000


@dataclass(frozen=True)
class Match:
    """A text of the training pairs that the evaluation holds too."""

    row: int
    column: str
    text: str
    other: str
    """The evaluation's text."""
    similarity: float
    """The share of words that the two have in common (Jaccard); 1 and `exact` where they read the same."""
    exact: bool


@dataclass(frozen=True)
class Overlap:
    """What training pairs and an evaluation set have in common."""

    pairs: int
    texts: int
    near: float
    """The similarity from which two texts count as near duplicates."""
    matches: tuple[Match, ...]
    """By row and column; of several texts that match one of the pairs' the most similar."""

    @property
    def rows(self) -> frozenset[int]:
        """The rows with a match."""
        return frozenset(match.row for match in self.matches)

    @property
    def exact_rows(self) -> frozenset[int]:
        """The rows of which a text reads the same as one of the evaluation."""
        return frozenset(match.row for match in self.matches if match.exact)

    def __str__(self) -> str:
        share = len(self.rows) / self.pairs if self.pairs else 0.0
        columns = Counter(match.column for match in self.matches)
        listed = ", ".join(f"{name} {count:,}" for name, count in sorted(columns.items()))
        return (
            f"{len(self.rows):,} of {self.pairs:,} pairs ({share:.2%}) share a text with the {self.texts:,} of the "
            f"evaluation, {len(self.exact_rows):,} word for word" + (f" ({listed})" if listed else "")
        )


def overlap(
    pairs: Dataset,
    texts: Iterable[str] | EvaluationTexts,
    *,
    near: float = NEAR,
    columns: Sequence[str] | None = None,
) -> Overlap:
    """Find the training pairs that hold a text of an evaluation set.

    Two texts are near duplicates where the share of words in common, of those that either has, is at least `near`
    (that of the EvaluationTexts, where `texts` are such). `columns` are those to look at; all of the texts' without it.

    Raises ConfigError for `near` outside ]0, 1] and for a column that is not there.

    Example:
        >>> from antiphon.pairs import Pair, overlap, to_dataset
        >>> pairs = to_dataset([Pair("sort a list", "Return a sorted list."), Pair("open a file", "Open it.")])
        >>> sorted(overlap(pairs, ["Sort a list!"]).rows)
        [0]
    """
    index = texts if isinstance(texts, EvaluationTexts) else EvaluationTexts(texts, near=near)
    looked_at = list(columns or (name for name in pairs.column_names if name != LABEL))
    for name in looked_at:
        if name not in pairs.column_names:
            raise ConfigError(f"The pairs have no column {name!r}, only {', '.join(pairs.column_names)}.")
    matches: list[Match] = []
    seen: dict[str, tuple[str, float, bool] | None] = {}
    for row, column, text in _cells(pairs, looked_at):
        if text not in seen:
            seen[text] = index.nearest(text)
        if (found := seen[text]) is not None:
            matches.append(Match(row, column, text, *found))
    return Overlap(len(pairs), len(index.texts), index.near, tuple(matches))


def without(pairs: Dataset, found: Overlap) -> Dataset:
    """Return the pairs without the rows that have a match.

    Example:
        >>> from antiphon.pairs import Pair, overlap, to_dataset, without
        >>> pairs = to_dataset([Pair("sort a list", "Return a sorted list."), Pair("open a file", "Open it.")])
        >>> without(pairs, overlap(pairs, ["Sort a list!"]))["anchor"][:]
        ['open a file']
    """
    rows = found.rows
    return pairs.select([row for row in range(len(pairs)) if row not in rows]) if rows else pairs


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case and one form."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _WORD.findall(plain.casefold())


def reading(text: str) -> str:
    """Return what two texts have in common that read the same; a text without words stands for itself.

    Example:
        >>> from antiphon.pairs import reading
        >>> reading("Sort, a list!") == reading("sort a list")
        True
    """
    return _joined(words(text), text)


def _joined(found: Sequence[str], text: str) -> str:
    return " ".join(found) or text.strip()


def _cells(pairs: Dataset, columns: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield row, column and text of every cell that has one."""
    row = 0
    for batch in pairs.with_format(None).select_columns(list(columns)).iter(batch_size=_BATCH):
        for values in zip(*(batch[name] for name in columns), strict=True):
            for name, text in zip(columns, values, strict=True):
                if text:
                    yield row, name, text
            row += 1


class EvaluationTexts:
    """The texts of an evaluation, found by what they say and by their rarest words; made once for many sets."""

    def __init__(self, texts: Iterable[str], *, near: float = NEAR) -> None:
        """Take the texts, and the similarity from which two count as near duplicates; ConfigError outside ]0, 1]."""
        if not 0 < near <= 1:
            raise ConfigError(f"near is {near}; a similarity above 0 and of at most 1 is wanted.")
        self.texts = list(texts)
        found = [words(text) for text in self.texts]
        counts = Counter(word for text in found for word in set(text))
        ranked = sorted(counts, key=lambda word: (counts[word], word))
        self.near = near
        self.rank = {word: number for number, word in enumerate(ranked)}
        self.sets = [frozenset(self.rank[word] for word in text) for text in found]
        self.exact: dict[str, int] = {}
        self.by_word: dict[int, list[int]] = {}
        for number, text in enumerate(found):
            self.exact.setdefault(_joined(text, self.texts[number]), number)
            for word in sorted(self.sets[number])[: self._prefix(len(self.sets[number]))]:
                self.by_word.setdefault(word, []).append(number)

    def nearest(self, text: str) -> tuple[str, float, bool] | None:
        """Return the text most like this one, how like it is, and whether it reads the same; None below `near`."""
        found = words(text)
        same = self.exact.get(_joined(found, text))
        if same is not None:
            return self.texts[same], 1.0, True
        own = set(found)
        known = sorted(self.rank[word] for word in own if word in self.rank)
        # words that no text has are the rarest of all: they come first in the prefix and lead nowhere
        prefix = self._prefix(len(own)) - (len(own) - len(known))
        candidates = {number for word in known[: max(prefix, 0)] for number in self.by_word.get(word, ())}
        best, most = None, 0.0
        for number in sorted(candidates):
            other = self.sets[number]
            if min(len(own), len(other)) < self.near * max(len(own), len(other)):
                continue
            shared = sum(word in other for word in known)
            similarity = shared / (len(own) + len(other) - shared)
            if similarity >= self.near and similarity > most:
                best, most = number, similarity
        return None if best is None else (self.texts[best], most, False)

    def _prefix(self, size: int) -> int:
        """Return how many of the rarest words two sets that are alike cannot both lack."""
        return size - math.ceil(self.near * size - 1e-9) + 1
