"""Records of CSV and TSV files.

CSV is that of RFC 4180: a field in double quotes may hold separators and line ends, and a quote in it is doubled.

In a TSV a line is a row wherever it has as many fields as the first, and a field whole in quotes, those in it doubled,
loses them; any other quote is text. Only a line with too few or too many fields is read as CSV would read it, over
separators and lines. So a stray quote never swallows what follows it.

A cell that is a list of strings, as JSON or Python write it, is read as a list.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator
from itertools import chain

from antiphon.data.byte_streams import Stream, refuse
from antiphon.data.skipped import Skipped

Cell = str | list[str]
Record = tuple[str, list[str]]
"""The place of a record and its fields."""

_ANY_LENGTH = 2**31 - 1
_IN_QUOTES = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_ITEM = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*)?\]", re.DOTALL)
_ARRAY = re.compile(rf"\[\s*{_ITEM}(?:(?:\s+|\s*,\s*){_ITEM})*\s*,?\s*\]", re.DOTALL)
"""As numpy prints one: no commas, so that Python would join its strings to one."""


def records(stream: Stream, separator: str, skipped: Skipped) -> Iterator[Record]:
    """Yield the records of a file, the header included, all of one width.

    Blank lines between records are counted as skipped, those at the end of the file are none of it. Raises DataError,
    with the line, for a record of another width than the first and for quotes that do not end.
    """
    blank: list[str] = []
    width = 0
    for where, fields in _tabbed(stream) if separator == "\t" else _quoted(stream):
        if not fields or (len(fields) == 1 and not fields[0].strip()):
            blank.append(where)
            continue
        if blank and width:
            skipped.add("blank lines between rows", blank[0], "remove the line", number=len(blank))
        blank.clear()
        width = width or len(fields)
        if len(fields) != width:
            refuse(
                f"{where} has {len(fields)} columns and the header has {width}; mend the row, and put quotes around a "
                "text that holds the separator."
            )
        yield where, fields


def cell(text: str, where: str, name: str) -> Cell:
    """Return a cell: a list where it is one; DataError where it looks like one and cannot be read as such."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    if _LIST.fullmatch(text):
        for read in (json.loads, ast.literal_eval):
            try:
                return [str(item) for item in read(text)]
            except (ValueError, SyntaxError):
                continue
    elif not _ARRAY.fullmatch(text):
        return text
    refuse(
        f"{where}: {name!r} is {text!r:.80}, which looks like a list of texts and is none that JSON or Python could "
        'read; write it as ["one", "two"].'
    )


def _quoted(stream: Stream) -> Iterator[Record]:
    reader = csv.reader((line for _, line in stream.lines()), csv.excel, strict=True)
    while True:
        try:
            fields = _next(reader)
        except csv.Error as error:
            refuse(
                f"{stream.name}, line {reader.line_num} cannot be read ({error}); mend the quotes or use JSON lines."
            )
        if fields is None:
            return
        yield f"{stream.name}, line {reader.line_num}", fields


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next record, its fields of any length; None at the end."""
    before = csv.field_size_limit(_ANY_LENGTH)  # one limit for the whole process: lifted for this record alone
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _tabbed(stream: Stream) -> Iterator[Record]:
    lines = stream.lines()
    width = 0
    for number, line in lines:
        plain = line.rstrip("\r\n")
        fields = plain.split("\t") if plain.strip(" ") else []
        width = width or len(fields)
        quoted = _spanning(line, lines, width) if fields and len(fields) != width and '"' in line else None
        yield f"{stream.name}, line {number}", quoted or [_unquoted(field) for field in fields]


def _unquoted(field: str) -> str:
    found = _IN_QUOTES.fullmatch(field) if field.startswith('"') else None
    return field if found is None else found[1].replace('""', '"')


def _spanning(line: str, lines: Iterator[tuple[int, str]], width: int) -> list[str] | None:
    """Return the record that begins with a line, quoted as in CSV; None where it has not `width` fields."""
    reader = csv.reader(chain([line], (following for _, following in lines)), csv.excel_tab, strict=True)
    try:
        fields = _next(reader)
    except csv.Error:
        return None
    return fields if fields is not None and len(fields) == width else None
