"""Conditions on what is kept beside a text: `year>=2019`, `lang=en`, `tags=python`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.corpus.hits import Hit
from antiphon.data.text_columns import OWN, Record
from antiphon.errors import ConfigError, among

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_WHOLE, _FLOATS = ("int", "uint"), ("float", "double")
_CONDITION = re.compile(r"\s*(?P<field>.+?)\s*(?P<sign>!=|<=|>=|==|=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """What one field of a text must be."""

    field: str
    sign: str
    value: str

    @classmethod
    def parse(cls, words: str) -> Condition:
        """Read a condition; ConfigError where it is none.

        Example:
            >>> Condition.parse("year >= 2019")
            Condition(field='year', sign='>=', value='2019')
        """
        found = _CONDITION.fullmatch(words)
        if found is None:
            raise ConfigError(f"{words!r} is no condition; write FIELD=VALUE, or one of {' '.join(_OPERATORS)} for =.")
        return cls(found["field"], "=" if found["sign"] == "==" else found["sign"], found["value"])

    def sql(self, kind: str) -> str | None:
        """Return the condition as SQL on a column of an Arrow type, None where SQL would judge otherwise than `holds`.

        Example:
            >>> Condition.parse("year >= 2019").sql("int64")
            '`year` >= 2019'
        """
        asked = _number(self.value)
        if "`" in self.field:
            return None
        if kind.startswith(_WHOLE) and asked is not None and asked.is_integer():
            value = str(int(asked))
        elif kind in _FLOATS and asked is not None and math.isfinite(asked):
            value = repr(asked)
        elif kind == "string" and asked is None:
            value = "'" + self.value.replace("'", "''") + "'"
        else:
            return None
        clause = f"`{self.field}` {self.sign} {value}"
        return f"({clause} OR `{self.field}` IS NULL)" if self.sign == "!=" else clause

    def holds(self, record: Record | Hit) -> bool:
        """Return whether a record meets the condition; of a list one item is enough, of != all must differ.

        Numbers are compared as numbers, also where they are written in a string; all else as words. What has no value
        meets only !=.
        """
        value = record.fields.get(self.field, {"id": record.id, "text": record.text}.get(self.field))
        if value is None:
            return self.sign == "!="
        every = all if self.sign == "!=" else any
        return every(self._compared(item) for item in (value if isinstance(value, list | tuple) else [value]))

    def _compared(self, value: Any) -> bool:
        compare = _OPERATORS[self.sign]
        if isinstance(value, bool):
            return compare(str(value).lower(), self.value.lower())
        mine, asked = _number(value), _number(self.value)
        if mine is not None and asked is not None:
            return compare(mine, asked)
        return compare(str(value), self.value)


def sql_of(conditions: Sequence[Condition], columns: Mapping[str, str]) -> str | None:
    """Return those of some conditions that SQL can say, joined; None where it can say none."""
    types = {**columns, "id": "string", "text": "string"}
    clauses = [words for one in conditions if (words := one.sql(types[one.field])) is not None]
    return " AND ".join(clauses) or None


def parsed(where: str | Sequence[str], known: Collection[str] | None) -> list[Condition]:
    """Return the conditions, all of which must hold; ConfigError for a field that is not `known`."""
    conditions = [Condition.parse(words) for words in ([where] if isinstance(where, str) else where)]
    for condition in conditions:
        check_known(condition.field, known)
    return conditions


def check_known(field: str, known: Collection[str] | None) -> None:
    """Raise a ConfigError for a field that no text has; nothing is known of a stream."""
    names = [name for name in OWN if name != "vector"] + list(known or ())
    if known is not None and field not in names:
        raise ConfigError(f"The texts have no field {field!r}; {among(field, names)}.")


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
