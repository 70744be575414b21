"""Rows of local task files, checked: what is wrong is told with file, line, value and fix, never scored in silence.

What the layouts are is layouts.py's business, what becomes of the rows that of tasks.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from antiphon.errors import DataError


def refuse(message: str) -> NoReturn:
    """Raise the DataError of a bad row."""
    raise DataError(message) from None


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) without its ending, blank lines left out; a byte-order mark is no part of the text."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    refuse(f"{path}, line {number}: byte {error.start + 1} is not UTF-8; convert the file first.")
                if line.strip():
                    yield number, line
    except OSError as error:
        refuse(f"{path} cannot be read ({error.strerror or error}).")


def objects(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) of a JSON lines file whose rows have all of `fields`."""
    for number, line in lines(path):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            refuse(f"{where} is not JSON ({error}): {line!r:.80}; write one JSON object a line.")
        if not isinstance(row, dict):
            refuse(f"{where} is not a JSON object: {line!r:.80}; write one JSON object a line.")
        missing = [field for field in fields if field not in row]
        if missing:
            refuse(f"{where} has no field {missing[0]!r}, only {', '.join(map(repr, row)) or 'none'}; add it.")
        yield where, row


def separated(path: Path, width: int) -> Iterator[tuple[str, list[str]]]:
    """Yield (where, columns) of a tab-separated file, header included; quotes are plain characters."""
    for number, line in lines(path):
        where, columns = f"{path}, line {number}", line.split("\t")
        if len(columns) != width:
            refuse(f"{where} has {len(columns)} columns where {width} are wanted, with tabs between them: {line!r:.80}")
        yield where, columns


def text_of(value: object, where: str, what: str, *, empty: bool = False) -> str:
    """Return a text; an empty one only where that is allowed."""
    if not isinstance(value, str):
        refuse(f"{where}: the {what} is {value!r:.80}, which is no string; make it one or remove the row.")
    if not empty and not value.strip():
        refuse(f"{where}: the {what} is empty; remove the row.")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(f"{where}: the {what} holds half of a surrogate pair, which is no character; mend the escape.")
    return value


def texts_of(value: object, where: str, what: str) -> list[str]:
    """Return a non-empty list of texts."""
    if not isinstance(value, list) or not value:
        refuse(f"{where}: {what!r} is {value!r:.80}; a list of at least one text is wanted. Mend or remove the row.")
    return [text_of(item, where, what) for item in value]


def id_of(value: object, where: str) -> str:
    """Return an id as a string."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        refuse(f"{where}: the id is {value!r:.80}; make it a string or a whole number.")
    return str(value)


def number_of(value: str, where: str) -> float:
    """Return a finite number."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        refuse(f"{where}: the score is {value!r:.40}, which is no finite number.")
    return number


def grade_of(value: str, where: str) -> int:
    """Return a grade of relevance."""
    try:
        return int(value)
    except ValueError:
        refuse(f"{where}: the relevance is {value!r:.40}; a whole number is wanted (0 is not relevant).")


def label_of(value: object, where: str) -> str:
    """Return a label as a string, so that 1 and "1" are one label in all files."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        refuse(f"{where}: the label is {value!r:.80}; make it a string or a whole number.")
    return str(value)
