"""Text on a terminal: control characters of texts, file names and messages are shown and never sent.

A terminal obeys what begins with ESC: titles, colours, links, answers typed back. Texts come from anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_PICTURES = 0x2400
"""Where Unicode's pictures of control characters begin: U+241B is ESC's."""
_KEPT = "\n\t"
_VISIBLE: dict[int, int | str] = {
    **{code: _PICTURES + code for code in range(0x20) if chr(code) not in _KEPT},
    0x7F: 0x2421,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
}


def visible(text: str) -> str:
    """Return a text with every control character but new line and tab as its picture, ESC as ␛."""
    return text.translate(_VISIBLE)


class VisibleConsole(Console):
    """Rich's console, which on a terminal sends its own colours and no control character of a text's."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed."""
        for segment in super().render(renderable, options):
            if self.is_terminal and not segment.control:
                yield Segment(visible(segment.text), segment.style)
            else:
                yield segment


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()
