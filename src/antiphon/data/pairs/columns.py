"""From one row of a table to training pairs: which fields are meant, and what in them cannot be trained on.

Besides sentence-transformers' shapes (anchor, positive, negative_1 ...) those of others are read: FlagEmbedding (query,
pos, neg), Tevatron and DPR (lists of passages with title and text), GritLM and MEDI (an instruction before each text).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.data.byte_streams import refuse
from antiphon.data.cells import listed, text_of, value_of
from antiphon.data.rows import Row, Table
from antiphon.data.skipped import Skipped
from antiphon.errors import ConfigError, among, closest

FIELDS: Mapping[str, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "question"),
    "positive": ("positive", "pos", "answer", "positives", "positive_passages", "positive_ctxs"),
    "negative": ("negative", "negatives", "neg", "hard_negatives", "negative_passages", "negative_ctxs"),
}
"""The names under which each part is looked for where the user maps none; of negatives those that name them first."""
_NUMBERED = re.compile(r"negative_\d+")
_NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?(_?(?P<number>\d+)|_passages|_ctxs)?")
_IDENTITIES = ("id", "_id")


def column_map(words: str) -> dict[str, str]:
    """Return `anchor=q,positive=a` as a mapping; ConfigError for what is no such list.

    Example:
        >>> from antiphon.pairs import column_map
        >>> column_map("anchor=q,positive=a")
        {'anchor': 'q', 'positive': 'a'}
    """
    found: dict[str, str] = {}
    for assignment in filter(None, words.split(",")):
        part, equals, name = assignment.partition("=")
        if not equals or not part.strip() or not name.strip():
            raise ConfigError(f"{assignment!r} is no part of a column map; write anchor=q,positive=a.")
        found[part.strip()] = name.strip()
    return found


@dataclass(frozen=True)
class Pair:
    """A query, a text that answers it, and texts that do not."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """Which fields of a table hold which part of a pair."""

    anchor: str
    positive: str
    negatives: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, mapped: Mapping[str, str] | None = None) -> Columns:
        """Find the fields among those there are; `mapped` names them by part, and replaces the search for that part.

        Raises DataError where one is not there, ConfigError for a part that does not exist.
        """
        names, where, mapped = table.columns, table.where, dict(mapped or {})
        for part in mapped:
            if part not in (*FIELDS, "negatives") and not _NUMBERED.fullmatch(part):
                hint = among(part, ("anchor", "positive", "negative", "negative_1"))
                raise ConfigError(f"A pair has no part {part!r} to map a column to; {hint}")
        for part, name in mapped.items():
            if name not in names:
                refuse(f"{where} has no field {name!r} for the {part}, only {listed(names)}; mend the column map.")
        negatives = [name for part, name in mapped.items() if part.startswith("negative")]
        return cls(
            anchor=mapped.get("anchor") or _found("anchor", names, where),
            positive=mapped.get("positive") or _found("positive", names, where),
            negatives=tuple(dict.fromkeys(negatives or _negative_names(names))),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All of the fields."""
        return (self.anchor, self.positive, *self.negatives)

    @property
    def instructed(self) -> bool:
        """Whether texts may stand as [instruction, text], as GritLM and MEDI write them."""
        return self.positive == "pos"


def tell_unused(table: Table, columns: Columns, skipped: Skipped) -> None:
    """Count the columns of a table that no pair is made of, each with the name nearest to it that would be used."""
    unused = [name for name in table.columns if name not in (*columns.names, *_IDENTITIES)]
    if unused:
        known = [name for names in FIELDS.values() for name in names]
        unknown = []
        for name in unused:
            near = closest(name.lower(), known, cutoff=0.7)
            unknown.append(repr(name) + (f" (would be read as {near!r})" if near is not None else ""))
        what = f"columns that no pair is made of: {', '.join(unknown)}"
        skipped.add(what, table.where, "map, rename or remove them", number=len(unused))


def pairs_of(row: Row, columns: Columns, skipped: Skipped) -> Iterator[Pair]:
    """Yield the pairs of one row: one for each positive, where there is a list of them.

    Negatives may be a string or a list of strings; an empty one is none. Raises DataError, with the place of the row,
    for a part that is missing, blank or no string.
    """
    asked, answers = value_of(row, columns.anchor), value_of(row, columns.positive)
    if columns.instructed and _is_instructed(asked):
        if any(isinstance(text, str) and text.strip() for text in asked[:1]):
            skipped.add("instructions before texts", row.where, "give the set an instruction of its own")
        asked = asked[1]
        answers = [answers] if _is_instructed(answers) else answers
    positives = _items(answers)
    if not positives:
        refuse(f"{row.where}: {columns.positive!r} is an empty list; give a positive or remove the row.")
    anchor = text_of(asked, row.where, columns.anchor)
    negatives = tuple(_negatives(row, columns))
    for positive in positives:
        text = _passage(positive, columns, row, columns.positive)
        yield Pair(anchor, text_of(text, row.where, columns.positive), negatives)


def _negatives(row: Row, columns: Columns) -> Iterator[str]:
    instructed = columns.instructed and _is_instructed(row.values.get(columns.anchor))
    for name in columns.negatives:
        value = row.values.get(name)
        if instructed and _is_instructed(value):
            value = [value]
        for item in _items(value):
            text = None if item is None else _passage(item, columns, row, name)
            if text is not None and not (isinstance(text, str) and not text.strip()):
                yield text_of(text, row.where, name)


def _passage(item: Any, columns: Columns, row: Row, name: str) -> Any:
    """Return the text of a passage: a string, [instruction, text], or a mapping with text and, it may be, title."""
    if columns.instructed and _is_instructed(item):
        return item[1]
    if isinstance(item, Mapping):
        if not isinstance(item.get("text"), str):
            refuse(f"{row.where}: {name!r} has a passage without a text, {dict(item)!r:.80}; add it.")
        return f"{item.get('title') or ''} {item['text']}".strip()
    return item


def _items(value: Any) -> Sequence[Any]:
    """Return what stands in a column as a list; `datasets` turns a list of passages into a passage of lists."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        titles = value.get("title") or [""] * len(value["text"])
        return [{"title": title, "text": text} for title, text in zip(titles, value["text"], strict=True)]
    return value if isinstance(value, list | tuple) else [value]


def _is_instructed(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _negative_names(names: Sequence[str]) -> list[str]:
    """Return the columns of negatives, numbered ones in the order of their numbers."""
    found = {name: match for name in names if (match := _NEGATIVE.fullmatch(name)) is not None}
    return sorted(found, key=lambda name: int(found[name]["number"] or -1))


def _found(part: str, names: Sequence[str], where: str) -> str:
    found = [name for name in FIELDS[part] if name in names]
    if not found:
        refuse(
            f"{where} has no field {' or '.join(FIELDS[part])} for the {part}, only {listed(names)}; "
            f"name it in the column map ({part} = ...)."
        )
    return found[0]
