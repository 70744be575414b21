"""From one row of a table to training pairs: which fields are meant, and what in them cannot be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from antiphon.data.rows import Row, refuse
from antiphon.errors import ConfigError

FIELDS: Mapping[str, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "question"),
    "positive": ("positive", "pos", "answer"),
    "negative": ("negative", "negatives", "neg"),
}
"""The names under which each part is looked for where the user maps none."""
_NUMBERED = re.compile(r"negative_\d+")


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
    def of(cls, names: Sequence[str], where: str, mapped: Mapping[str, str] | None = None) -> Columns:
        """Find the fields among those there are; `mapped` names them by part, and replaces the search for that part.

        Raises DataError where one is not there, ConfigError for a part that does not exist.
        """
        mapped = dict(mapped or {})
        for part in mapped:
            if part not in (*FIELDS, "negatives") and not _NUMBERED.fullmatch(part):
                close = get_close_matches(part, (*FIELDS, "negatives", "negative_1"), n=1)
                hint = f"did you mean {close[0]!r}?" if close else "take anchor, positive, negative or negative_1."
                raise ConfigError(f"A pair has no part {part!r} to map a column to; {hint}")
        for part, name in mapped.items():
            if name not in names:
                refuse(f"{where} has no field {name!r} for the {part}, only {_listed(names)}; mend the column map.")
        negatives = [name for part, name in mapped.items() if part.startswith("negative")]
        if not negatives:
            negatives = [name for name in names if name in FIELDS["negative"] or _NUMBERED.fullmatch(name)]
        return cls(
            anchor=mapped.get("anchor") or _found("anchor", names, where),
            positive=mapped.get("positive") or _found("positive", names, where),
            negatives=tuple(dict.fromkeys(negatives)),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All of the fields."""
        return (self.anchor, self.positive, *self.negatives)


def pairs_of(row: Row, columns: Columns) -> Iterator[Pair]:
    """Yield the pairs of one row: one for each positive, where there is a list of them.

    Negatives may be a string or a list of strings; an empty one is none. Raises DataError, with the place of the row,
    for a part that is missing, blank or no string.
    """
    anchor = _text(row, columns.anchor, _value(row, columns.anchor))
    positives = _value(row, columns.positive)
    listed = positives if isinstance(positives, list | tuple) else [positives]
    if not listed:
        refuse(f"{row.where}: {columns.positive!r} is an empty list; give a positive or remove the row.")
    negatives = tuple(_negatives(row, columns))
    for positive in listed:
        yield Pair(anchor, _text(row, columns.positive, positive), negatives)


def _negatives(row: Row, columns: Columns) -> Iterator[str]:
    for name in columns.negatives:
        value = row.values.get(name)
        for text in value if isinstance(value, list | tuple) else [value]:
            if text is not None and not (isinstance(text, str) and not text.strip()):
                yield _text(row, name, text)


def _value(row: Row, name: str) -> Any:
    if name not in row.values:
        refuse(f"{row.where} has no field {name!r}, only {_listed(list(row.values))}; add it to the row.")
    return row.values[name]


def _text(row: Row, name: str, text: object) -> str:
    if not isinstance(text, str):
        refuse(f"{row.where}: {name!r} is {text!r:.80}, which is no string; make it one or remove the row.")
    if not text.strip():
        refuse(f"{row.where}: {name!r} has no text, it is {text!r:.80}; remove the row.")
    try:
        text.encode()
    except UnicodeEncodeError:
        refuse(f"{row.where}: {name!r} holds half of a surrogate pair, which is no character; mend the escape.")
    return text


def _found(part: str, names: Sequence[str], where: str) -> str:
    found = [name for name in FIELDS[part] if name in names]
    if not found:
        refuse(
            f"{where} has no field {' or '.join(FIELDS[part])} for the {part}, only {_listed(names)}; "
            f"name it in the column map ({part} = ...)."
        )
    return found[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
