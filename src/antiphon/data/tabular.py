"""Results as tables: lines of text where they are printed, HTML in a notebook, with the same cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_CELL = "padding: .2em .7em; white-space: nowrap; text-align: "
_WORDS, _NUMBER = f"{_CELL}left", f"{_CELL}right; font-variant-numeric: tabular-nums"


@dataclass(frozen=True)
class ResultTable:
    """A table whose first column is words and whose others are numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Return the caption and aligned lines."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[number]) for line in lines) for number in range(len(self.columns))]
        body = [
            "  ".join(f"{cell:{'>' if number else '<'}{widths[number]}}" for number, cell in enumerate(line)).rstrip()
            for line in lines
        ]
        return "\n".join([self.caption, *body])

    def html(self) -> str:
        """Return HTML in which every string is escaped: no script, no style sheet, nothing that would be fetched."""
        heads = "".join(_cell("th", number, name) for number, name in enumerate(self.columns))
        body = "".join(
            f"<tr>{''.join(_cell('td', number, words) for number, words in enumerate(row))}</tr>" for row in self.rows
        )
        return (
            f'<div style="overflow-x: auto"><table><caption style="text-align: left">{escape(self.caption)}</caption>'
            f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
        )


class Tabular(ABC):
    """What is shown as tables: at a prompt, by `print`, and by a notebook; a dataclass needs `repr=False` for it."""

    @abstractmethod
    def tables(self) -> list[ResultTable]:
        """Return the tables, the one that matters most first."""

    def __repr__(self) -> str:
        return "\n\n".join(table.text() for table in self.tables())

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return "".join(table.html() for table in self.tables())


def _cell(tag: str, number: int, words: str) -> str:
    return f'<{tag} style="{_NUMBER if number else _WORDS}">{escape(words)}</{tag}>'
