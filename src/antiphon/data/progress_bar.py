"""A bar for who calls a verb at a prompt or in a notebook; a script, whose log it would fill, gets none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from antiphon.data.processes import rank
from antiphon.model.library_messages import is_interactive

Progress = Callable[[int, int | None], None]
"""Told how much is done, and how much there is where that is known."""


class Bar:
    """One bar; it begins with the first call, and what is done by then does not count for the rate."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._began = False

    def __call__(self, done: int, total: int | None) -> None:
        """Show how much is done."""
        if not self._began:
            self._began = True
            self._shown.reset(total=total)
            self._shown.initial = self._shown.n = self._shown.last_print_n = done
            self._shown.refresh()
        self._shown.update(done - self._shown.n)

    def name(self, what: str) -> None:
        """Say what is done now."""
        self._shown.set_description(what)


def wants_bar(progress: bool | None) -> bool:
    """Return whether a bar is shown: as asked, without an answer in interactive use; by one process of several."""
    return rank() == 0 and (is_interactive() if progress is None else progress)


@contextmanager
def bar(what: str, *, unit: str) -> Iterator[Bar]:
    """Show a bar on standard error while the block runs, before anything is counted, too."""
    with tqdm(desc=what, unit=f" {unit}", unit_scale=True, dynamic_ncols=True) as shown:
        yield Bar(shown)


@contextmanager
def telling(
    what: str, progress: bool | None, given: Progress | None = None, *, unit: str = "texts"
) -> Iterator[Progress]:
    """Give what is told how far the block is: the caller's own function, else a bar where one is wanted."""
    if given is not None:
        yield given
    elif wants_bar(progress):
        with bar(what, unit=unit) as shown:
            yield shown
    else:
        yield _silent


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""
