"""Lines, tables, messages and progress: data to standard output, the rest to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from antiphon.cli.report.visible import VisibleConsole, on_terminal, visible

_SECONDS_BETWEEN_LINES = 10.0
_PATIENCE = 1.0
"""Seconds after which who waits at a terminal is told for what."""
_POOLED = "bold black on green"


def say(message: str = "") -> None:
    """Print a line of data to standard output, as it is; on a terminal its control characters are shown."""
    print(visible(message) if on_terminal() else message)  # not by rich, which would make spaces of the tabs


def note(message: str) -> None:
    """Print a message to standard error."""
    console(stderr=True).print(Text(message), soft_wrap=True)


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """Print a message at a terminal where the block takes longer than a second; elsewhere never."""
    if not console(stderr=True).is_terminal:
        yield
        return
    timer = Timer(_PATIENCE, note, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def error(message: str) -> None:
    """Print what went wrong to standard error."""
    console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; the first column is words, the others are numbers."""
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        out.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        out.add_row(*map(Text, row))
    screen = console()
    if not screen.is_terminal:
        screen.width = 200  # a pipe has no width, and a number that is cut is a wrong number
    screen.print(out)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give a function to be told (done, total), and show rate and time left on standard error while the block runs.

    What is done at the first call was done before and does not count for the rate. Without a terminal it is a line now
    and then.
    """
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _Lines(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task(what, total=None, start=False)
        started = False

        def tell(done: int, total: int | None) -> None:
            nonlocal started
            if not started:
                bar.reset(task, total=total, completed=done)
                started = True
            bar.update(task, completed=done, total=total)

        yield tell


class _Rate(ProgressColumn):
    """Texts a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, nothing before it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s")


class _Lines:
    """Progress for a log: a plain line every few seconds and at the end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._first: tuple[int, float] | None = None
        self._last_line = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        finished = done == total
        if now - self._last_line < _SECONDS_BETWEEN_LINES and not finished:
            return
        self._last_line = now
        rate = (done - self._first[0]) / max(now - self._first[1], 1e-9)
        of = "" if total is None else f" of {total:,}"
        left = f", {(total - done) / rate:,.0f} s left" if total is not None and rate > 0 and not finished else ""
        speed = f", {rate:,.1f}/s" if rate > 0 else ""
        note(f"{self._what}: {done:,}{of}{speed}{left}")


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error."""
    # made anew each time: the streams may have been replaced, and rich reads NO_COLOR and the terminal when it is made
    return VisibleConsole(stderr=stderr, highlight=False)
