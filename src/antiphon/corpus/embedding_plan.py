"""The plan of embedding many passages: what it is asked with, and what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from antiphon.corpus.codec import NUMBER_BITS, Precision
from antiphon.data.tabular import ResultTable, Tabular
from antiphon.errors import ConfigError

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What is known beforehand; None is counted or measured on the source.

    Example:
        >>> Sizing(passages=100_000_000, tokens=512, tokens_per_second=128_000, price=2.5).within
        24.0
    """

    passages: int | None = None
    tokens: float | None = None
    """Of a passage as the model reads it: frame, prompt and every copy."""
    tokens_per_second: float | None = None
    """Of one worker: a GPU, or this machine."""
    price: float | None = None
    """Dollars an hour of such a worker."""
    within: float = 24.0
    """Hours in which the workers are to be done."""

    def checked(self) -> Sizing:
        """Return the settings; ConfigError for a number that is not above 0."""
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; a number above 0 is wanted.")
        return self


@dataclass(frozen=True)
class Worker:
    """One that embeds: a GPU or a machine."""

    name: str
    flops_per_second: float
    """Floating point operations that it does while it embeds, not those of a data sheet."""
    price: float | None
    """Dollars an hour."""


@dataclass(frozen=True, repr=False)
class EmbeddingPlan(Tabular):
    """What embedding a corpus takes."""

    model: str
    passages: int
    tokens: float
    flops: float
    """Floating point operations of a passage."""
    dimensions: int
    precision: Precision
    text_bytes: float | None
    """Bytes of a passage's text and id; None where there was none to look at."""
    within: float
    workers: tuple[Worker, ...]

    def hours(self, worker: Worker) -> float:
        """Return the hours that it takes one worker: passages x operations of one / operations a second / 3600."""
        return self.passages * self.flops / worker.flops_per_second / 3600

    def wanted(self, worker: Worker) -> int:
        """Return how many workers are done within the hours asked for."""
        return max(1, math.ceil(self.hours(worker) / self.within))

    def dollars(self, worker: Worker) -> float | None:
        """Return what its hours cost, which are as many however many workers share them."""
        return None if worker.price is None else self.hours(worker) * worker.price

    def cells(self, worker: Worker) -> tuple[str, ...]:
        """Return a worker's figures in words, in the order of `columns`."""
        speed, dollars = worker.flops_per_second / self.flops, self.dollars(worker)
        return (
            worker.name,
            f"{speed * self.tokens:,.0f}",
            _figures(speed),
            _figures(self.hours(worker)),
            f"{self.wanted(worker):,}",
            "" if dollars is None else _figures(dollars),
        )

    @property
    def vector_bytes(self) -> float:
        """Bytes of all vectors: passages x dimensions x bits / 8."""
        return self.passages * self.dimensions * NUMBER_BITS[self.precision] / 8

    @property
    def columns(self) -> tuple[str, ...]:
        """What the figures of a worker are called."""
        return ("worker", "tokens/s", "passages/s", "hours of one", f"workers for {self.within:g} h", "dollars")

    @property
    def head(self) -> str:
        """What is embedded, in a line."""
        return (
            f"{self.passages:,} passages of {self.tokens:,.0f} tokens by {self.model}: "
            f"{self.flops / 1e9:,.1f} GFLOP a passage, {self.passages * self.flops:.2e} in all"
        )

    @property
    def storage(self) -> str:
        """What is stored, in a line."""
        kind = f"{self.dimensions:,} dimensions as {self.precision}"
        texts = "" if self.text_bytes is None else f", texts and ids {sized(self.passages * self.text_bytes)}"
        return f"vectors ({kind}) {sized(self.vector_bytes)}{texts}"

    def tables(self) -> list[ResultTable]:
        """Return the table of workers."""
        return [ResultTable(f"{self.head}; {self.storage}", self.columns, [self.cells(one) for one in self.workers])]


def sized(number: float) -> str:
    """Return bytes in words, in units of a thousand.

    Example:
        >>> sized(4_096_000_000), sized(164e12)
        ('4.1 GB', '164 TB')
    """
    for unit in _UNITS[:-1]:
        if number < 999.5:
            return f"{_figures(number)} {unit}"
        number /= 1000
    return f"{_figures(number)} {_UNITS[-1]}"


def _figures(number: float) -> str:
    """Return a number with the two digits that an estimate has, and no power of ten."""
    return f"{number:,.2g}" if number < 9.95 else f"{number:,.0f}"
