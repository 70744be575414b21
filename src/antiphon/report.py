"""The only place that prints: tables, tokens and hits to standard output, progress and messages to standard error.

What goes into a pipe is plain: no colour, no boxes cut to a width. NO_COLOR is honoured. It computes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from antiphon.corpus import Hit
    from antiphon.demo import Demo
    from antiphon.showing import Description

_SECONDS_BETWEEN_LINES = 10.0
_POOLED = "bold black on green"


def say(message: str = "") -> None:
    """Print a line of data to standard output, as it is."""
    print(message)  # not by rich, which would make spaces of the tabs


def note(message: str) -> None:
    """Print a message to standard error."""
    _console(stderr=True).print(Text(message), soft_wrap=True)


def error(message: str) -> None:
    """Print what went wrong to standard error."""
    _console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; the first column is words, the others are numbers."""
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        out.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        out.add_row(*map(Text, row))
    console = _console()
    # a pipe has no width, and a number that is cut is a wrong number
    console.print(out, width=None if console.is_terminal else 200)


def hits(found: Sequence[Hit]) -> None:
    """Print what a search found: a table, or in a pipe score, id and text with tabs between them, a hit a line."""
    console = _console()
    if not console.is_terminal:
        for hit in found:
            say(f"{hit.score:.4f}\t{_one_line(hit.id)}\t{_one_line(hit.text)}")
        return
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("score", justify="right", style="cyan")
    out.add_column("id", style="bold", overflow="fold", max_width=40)
    out.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for hit in found:
        out.add_row(f"{hit.score:.4f}", Text(hit.id), Text(_one_line(hit.text)))
    console.print(out)


def description(shown: Description) -> None:
    """Print how a model reads a text: the settings, then the tokens, the pooled ones highlighted and in brackets."""
    limit = "no limit" if shown.max_tokens is None else f"max_tokens {shown.max_tokens}"
    positions = "" if shown.positions is None else f", {shown.positions} positions"
    lines = {
        "template": f"{shown.template} ({shown.side} side)",
        "prompt": repr(shown.prompt) if shown.prompt else "none",
        "pooling": f"{shown.pooling} over {shown.pooled} of {len(shown.tokens)} tokens",
        "length": f"{len(shown.tokens)} tokens ({limit} with one copy of the text{positions})"
        + (", the text is cut" if shown.cut else ""),
        "vector": f"{shown.dimensions} dimensions, {shown.dtype} on {shown.device}",
        "attention": shown.attention,
        "modules": shown.modules,
    }
    for name, value in lines.items():
        say(f"{name:<10} {value}")
    tokens = Text()
    for token in shown.tokens:
        words = token.text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"
        tokens.append(f"[{words}]" if token.pooled else words, style=_POOLED if token.pooled else None)
        tokens.append(" ")
    say()
    _console().print(tokens, soft_wrap=True)
    say()
    say("[pooled] tokens stand in brackets; · is a space, ⏎ a new line, � and ∅ are parts of one character.")


def demo(outcome: Demo, model: str) -> None:
    """Print the outcome of the demo: the table, what echo adds, the search, and how to go on."""
    say(
        f"{outcome.pairs:,} docstrings of the standard library: the first line searches for the rest among all of "
        f"them.\nZero-shot, {model}, at most {outcome.max_tokens} tokens a copy; intervals are 95 % (bootstrap).\n"
    )
    table(
        ("template", "pooling", "nDCG@10", "95 % interval"),
        [
            (row.template, row.pooling, f"{row.ndcg.mean:.4f}", f"{row.ndcg.low:.4f} to {row.ndcg.high:.4f}")
            for row in outcome.rows
        ],
    )
    for gain in outcome.gains:
        figures = gain.ndcg
        say(
            f"echo minus classical, {gain.pooling}: {figures.mean:+.4f} [{figures.low:+.4f}, {figures.high:+.4f}], "
            "query by query"
        )
    best = outcome.best
    say(f"\nThe best row ({best.template}, {best.pooling}) asked for: {outcome.query}\n")
    hits(outcome.hits)
    say(
        f"\nSearch all of it: antiphon search docstrings {quote(outcome.query)} --model {quote(model)} "
        f"--template {best.template} --pooling {best.pooling}"
    )


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give a function to be told (done, total), and show rate and time left on standard error while the block runs.

    What is done at the first call was done before and does not count for the rate. Without a terminal it is a line now
    and then.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
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


def _console(*, stderr: bool = False) -> Console:
    # made anew each time: the streams may have been replaced, and rich reads NO_COLOR and the terminal when it is made
    return Console(stderr=stderr, highlight=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
