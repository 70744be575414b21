"""A source cut into shards: what was found by reading it once, and the lists of texts that are to be embedded."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from antiphon.corpus.kept_columns import KeptColumns
from antiphon.corpus.seen import Seen
from antiphon.corpus.windows import chunks_of
from antiphon.data.skipped import Skipped
from antiphon.data.sources import Source
from antiphon.data.text_columns import Record
from antiphon.errors import DataError

CALIBRATED_ON = 4096
"""Texts, evenly spread over the source, that the ranges of int8 are taken from."""
_LOOKED_AT = 4096
"""Records of which the kept columns are typed together."""


@dataclass(frozen=True)
class Work:
    """The texts to embed, list by list, as often as anybody asks: a worker elsewhere reads the source by itself."""

    source: Source
    shard_size: int
    total: int
    held: Container[int] = ()
    """The numbers of shards that are there and are left out."""
    calibrates: bool = False
    """Whether the first list is the texts that int8 is calibrated on."""

    @property
    def shards(self) -> int:
        """How many shards the source has, those that are there among them."""
        return -(-self.total // self.shard_size)

    def lists(self) -> Iterator[list[Record]]:
        """Yield what is embedded together."""
        if self.calibrates:
            yield spread(self.source, self.total)
        for number, records in enumerate(chunks_of(self.source.records(), self.shard_size)):
            if number not in self.held:
                yield records


@dataclass(frozen=True)
class CorpusJob:
    """A source cut into shards, and what was found by reading it once, where that can be."""

    source: Source
    shard_size: int
    total: int | None
    kept: KeptColumns
    chunks: Iterable[list[Record]]
    """The shards' records, to be gone through once."""
    skipped: Skipped

    @classmethod
    def of(cls, source: Source, shard_size: int, skipped: Skipped) -> CorpusJob:
        """Read a source once, where it can be read again, and begin to read it anew."""
        total, found = _looked_through(source, skipped)
        chunks = chunks_of(source.records(None if source.repeatable else skipped), shard_size)
        first = next(chunks, [])  # before anything is written: an empty standard input leaves no folder behind
        kept = found if found is not None else KeptColumns().with_values_of(first)
        return cls(source, shard_size, total, kept, _checked(chain([first], chunks), source, kept, skipped), skipped)

    def calibration(self, first: list[Record]) -> list[Record]:
        """Return the texts that int8 is calibrated on: those of the first shard where the source is read only once."""
        return first if self.total is None else spread(self.source, self.total)

    def again(self) -> Iterator[list[Record]]:
        """Yield the shards' records of a source that can be read again."""
        yield from chunks_of(self.source.records(), self.shard_size)


def spread(source: Source, total: int) -> list[Record]:
    """Return up to CALIBRATED_ON texts evenly spread over a source."""
    step = -(-total // CALIBRATED_ON)
    return [record for number, record in enumerate(source.records()) if number % step == 0]


def _checked(
    chunks: Iterable[list[Record]], source: Source, kept: KeptColumns, skipped: Skipped
) -> Iterator[list[Record]]:
    """Yield the shards' records; of a stream what cannot be kept is counted, and an id that comes twice is refused."""
    seen = Seen()
    for records in chunks:
        kept.tell_missing(records, source.name, skipped)
        if not source.repeatable:
            _check_ids(source, records, seen)
        yield records


def _looked_through(source: Source, skipped: Skipped) -> tuple[int | None, KeptColumns | None]:
    """Read a whole source, and return how many texts it has and their kept columns; neither where it is read once."""
    if not source.repeatable:
        return None, None
    total, kept, seen = 0, KeptColumns({name: pa.null() for name in source.kept or ()}), Seen()
    for records in chunks_of(source.records(skipped), _LOOKED_AT):
        total += len(records)
        kept = kept.with_values_of(records)
        _check_ids(source, records, seen)
    return total, kept


def _check_ids(source: Source, records: Sequence[Record], seen: Seen) -> None:
    """Raise a DataError where a text has the id of one before it."""
    new = set(seen.new([one.id for one in records]))
    twice = next((one.id for number, one in enumerate(records) if number not in new), None)
    if twice is not None:
        raise DataError(
            f"{source.name} has two texts with the id {twice!r:.80}, and an id names one; mend it, or name by --id "
            "(id_field=) a field in which every text has its own."
        )
