"""What is told while tasks are run: which one, how long it may take, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from antiphon.data.progress_bar import Bar, bar, wants_bar
from antiphon.evaluation.embedder import Encode
from antiphon.model.parity import unlike_texts

_NO_TEXT = ("id", "label", "labels", "relevant")


class Listener(Protocol):
    """Told how an evaluation goes; amounts are characters of text."""

    def estimate(self, characters: int, seconds: float) -> None:
        """Hear before anything is run how much there is, and how long it takes at the speed of a first sample."""

    def task(self, name: str, number: int, count: int) -> None:
        """Hear which task begins, counted from 1."""

    def progress(self, done: int, total: int | None) -> None:
        """Hear how far it is; what was known already counts as done. None where the whole is not known."""


class BarListener:
    """Shows an evaluation as one bar that names the task."""

    def __init__(self, shown: Bar) -> None:
        self._shown = shown

    def estimate(self, characters: int, seconds: float) -> None:
        """Pass it over: the bar has its own."""

    def task(self, name: str, number: int, count: int) -> None:
        """Name the task."""
        self._shown.name(f"{name} ({number} of {count})")

    def progress(self, done: int, total: int | None) -> None:
        """Show how far it is."""
        self._shown(done, total)


@contextmanager
def listening(given: Listener | None, progress: bool | None) -> Iterator[Listener | None]:
    """Give the listener of an evaluation: the caller's own listener, else a bar where one is wanted."""
    if given is not None or not wants_bar(progress):
        yield given
        return
    with bar("evaluating", unit="characters") as shown:
        yield BarListener(shown)


class Meter:
    """Counts for a listener, who may be none."""

    def __init__(self, listener: Listener | None, sizes: Sequence[int | None]) -> None:
        self._listener = listener
        known = [size for size in sizes if size is not None]
        self._sizes = sizes
        self._total = sum(known) if len(known) == len(sizes) else None
        self._before = self._now = 0
        self._most: int | None = None

    def estimate(self, encode: Encode) -> None:
        """Time a few texts and tell how long all of them may take, where there is a listener."""
        if self._listener is None or self._total is None or isinstance(self._listener, BarListener):
            return  # a bar has a rate of its own, for which no text need be embedded
        texts = [text for text in unlike_texts() if text.strip()]
        encode(texts, "", "query")  # the first call prepares
        began = time.perf_counter()
        encode(texts, "", "query")
        speed = sum(map(len, texts)) / max(time.perf_counter() - began, 1e-9)
        self._listener.estimate(self._total, self._total / speed)

    def begin(self, name: str, number: int) -> None:
        """Tell that the task with a number from 0 begins."""
        self._now, self._most = 0, self._sizes[number]
        if self._listener is not None:
            self._listener.task(name, number + 1, len(self._sizes))

    def embedded(self, texts: Sequence[str]) -> None:
        """Count texts of the task that is run."""
        self._now += sum(map(len, texts))
        if self._most is not None:  # what mteb makes of the texts may be a little longer
            self._now = min(self._now, self._most)
        self._tell()

    def end(self, number: int) -> None:
        """Count the whole task as done."""
        self._before += self._sizes[number] or self._now
        self._now = 0
        self._tell()

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener.progress(self._before + self._now, self._total)


def characters(value: Any) -> int:
    """Return the characters of all strings in nested columns and rows, ids and labels apart."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(characters(inner) for key, inner in value.items() if key not in _NO_TEXT)
    if isinstance(value, list | tuple):
        return sum(map(characters, value))
    return 0
