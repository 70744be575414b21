"""A table for a notebook: escaped, and without script, style sheet or anything else that would have to be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL = "padding: .2em .7em; white-space: nowrap; text-align: "
_WORDS, _NUMBER = f"{_CELL}left", f"{_CELL}right; font-variant-numeric: tabular-nums"


def html_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is words and whose others are numbers; every string is escaped here."""
    heads = "".join(_cell("th", number, name) for number, name in enumerate(columns))
    body = "".join(
        f"<tr>{''.join(_cell('td', number, words) for number, words in enumerate(row))}</tr>" for row in rows
    )
    return (
        f'<div style="overflow-x: auto"><table><caption style="text-align: left">{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(tag: str, number: int, words: str) -> str:
    return f'<{tag} style="{_NUMBER if number else _WORDS}">{escape(words)}</{tag}>'
