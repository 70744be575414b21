"""What may stand in a cell, checked: what is wrong is told with file, line, value and fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from antiphon.data.byte_streams import refuse
from antiphon.data.rows import Row


def value_of(row: Row, name: str) -> Any:
    """Return what a row has in a column; DataError where it has no such column."""
    if name not in row.values:
        refuse(f"{row.where} has no field {name!r}, only {listed(row.values)}; add it to the row.")
    return row.values[name]


def text_of(value: object, where: str, name: str, *, empty: bool = False) -> str:
    """Return a text; an empty one only where that is allowed.

    Raises DataError for another value than a string, a blank one, and half of a surrogate pair.
    """
    if not isinstance(value, str):
        refuse(f"{where}: {name!r} is {value!r:.80}, which is no string; make it one or remove the row.")
    if not empty and not value.strip():
        refuse(f"{where}: {name!r} has no text, it is {value!r:.80}; remove the row.")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(f"{where}: {name!r} holds half of a surrogate pair, which is no character; mend the escape.")
    return value


def texts_in(value: object, where: str, name: str) -> list[str]:
    """Return a non-empty list of texts."""
    if not isinstance(value, list) or not value:
        refuse(f"{where}: {name!r} is {value!r:.80}; a list of at least one text is wanted. Mend or remove the row.")
    return [text_of(item, where, name) for item in value]


def identity_of(value: object, where: str, name: str) -> str:
    """Return an id, or a label, as a string, so that 1 and "1" are one in all files."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        refuse(f"{where}: {name!r} is {value!r:.80}, which is no id; make it a string or a whole number.")
    return text_of(str(value), where, name, empty=True)


def number_of(value: object, where: str, name: str) -> float:
    """Return a finite number."""
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with suppress(ValueError):
            number = float(value)
    if not math.isfinite(number):
        refuse(f"{where}: {name!r} is {value!r:.40}, which is no finite number; mend the row.")
    return number


def grade_of(value: object, where: str, name: str) -> int:
    """Return a grade of relevance, a whole number."""
    number = number_of(value, where, name)
    if number != int(number):
        refuse(f"{where}: {name!r} is {value!r:.40}; a whole number is wanted (0 is not relevant).")
    return int(number)


def listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return names as messages list them."""
    return ", ".join(map(repr, names)) or "none"
