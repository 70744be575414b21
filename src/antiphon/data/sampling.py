"""Batches of one data set each, drawn by weight, without a text twice: sentence-transformers' multi-data-set sampler.

A global batch is what all processes see in one step: W batches of B rows, one after the other, all of one data set.
accelerate gives process r every W-th of them from the r-th on. What is drawn depends on seed and epoch alone, so a run
that is resumed by skipping batches goes on with the same ones.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
from torch.utils.data import BatchSampler, ConcatDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from antiphon.data.pairs import LABEL
from antiphon.data.processes import processes
from antiphon.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Rows = npt.NDArray[np.int64]
_CHUNK = 5000

logger = logging.getLogger(__name__)


def text_hashes(dataset: Dataset) -> npt.NDArray[np.uint64]:
    """Return a hash for each text of each row, (N, columns); 0 for an empty one, which is no text.

    White space around a text does not count; the column `label` and what is no text are left out.
    """
    names = [name for name in dataset.column_names if name != LABEL and _is_text(dataset, name)]
    plain = dataset.with_format("arrow").select_columns(names)
    hashes = np.zeros((len(dataset), len(names)), dtype=np.uint64)
    start = 0
    for table in plain.iter(batch_size=_CHUNK):
        for place, name in enumerate(names):
            texts = table.column(name).to_pylist()
            hashes[start : start + len(texts), place] = [
                xxhash.xxh3_64_intdigest(text.strip().encode()) if text else 0 for text in texts
            ]
        start += len(table)
    return hashes


class DistinctBatches:
    """Full batches of one data set in which no text stands twice in different rows."""

    def __init__(self, hashes: npt.NDArray[np.uint64], size: int) -> None:
        """Take the (N, columns) text hashes of a data set, and the rows of a batch."""
        self.rows, self.size = len(hashes), size
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        repeated = (counts[inverse] > 1).reshape(hashes.shape) & (hashes != 0)
        ids = inverse.reshape(hashes.shape)
        # only texts that stand more than once can meet themselves; most rows of most sets have none
        self.shared: dict[int, tuple[int, ...]] = {
            int(row): tuple(ids[row, repeated[row]].tolist()) for row in np.flatnonzero(repeated.any(axis=1))
        }

    def once(self, generator: np.random.Generator) -> Iterator[Rows]:
        """Yield the batches of one pass over the shuffled rows; rows that fill no batch are left out."""
        if not self.shared:
            order = generator.permutation(self.rows)
            for start in range(0, self.rows - self.size + 1, self.size):
                yield order[start : start + self.size]
            return
        fresh = iter(generator.permutation(self.rows).tolist())
        blocked: dict[int, deque[int]] = {}  # rows that could not join, by the text that stood in their way
        while True:
            batch = self._fill(fresh, blocked)
            if len(batch) < self.size:
                return
            yield np.asarray(batch, dtype=np.int64)

    def _fill(self, fresh: Iterator[int], blocked: dict[int, deque[int]]) -> list[int]:
        seen: set[int] = set()
        batch: list[int] = []

        def join(row: int) -> None:
            keys = self.shared.get(row, ())
            meets = next((key for key in keys if key in seen), None)
            if meets is not None:
                blocked.setdefault(meets, deque()).append(row)
                return
            seen.update(keys)
            batch.append(row)

        for key in list(islice(blocked, 2 * self.size)):
            if len(batch) == self.size:
                break
            if key not in seen:  # else its rows cannot join this batch either
                waiting = blocked[key]
                row = waiting.popleft()
                if not waiting:
                    del blocked[key]
                join(row)
        for row in fresh if len(batch) < self.size else ():
            join(row)
            if len(batch) == self.size:
                break
        return batch


def share_out(available: Sequence[int], weights: Sequence[float] | None = None) -> tuple[int, ...]:
    """Return how many global batches of each data set an epoch has, from those that one pass over it gives.

    All of them once without weights; else as many together, in proportion to the weights, so that a small set of much
    weight is gone through more than once. A data set that has not one full batch gets none.
    """
    if weights is None:
        return tuple(available)
    kept = np.asarray([weight if batches else 0.0 for weight, batches in zip(weights, available, strict=True)])
    total = sum(available) if kept.sum() > 0 else 0
    exact = total * kept / (kept.sum() or 1.0)
    shares = np.floor(exact).astype(int)
    # largest remainders first, of equal ones the earlier set
    for place in np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]:
        shares[place] += 1
    return tuple(int(share) for share in shares)


class Draws:
    """The global batches of several data sets, epoch by epoch."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        size: int,
        *,
        seed: int,
        names: Sequence[str] = (),
        weights: Sequence[float] | None = None,
    ) -> None:
        """Take the data sets, their relative weights, and the rows of a global batch.

        Raises DataError where no data set has rows for one.
        """
        self.size, self.seed = size, seed
        self.names = tuple(names) or tuple(map(str, range(len(datasets))))
        self.parts = [DistinctBatches(text_hashes(dataset), size) for dataset in datasets]
        self.available = tuple(self._pass_length(number) for number in range(len(self.parts)))
        """Global batches that one pass over each gives."""
        self.shares = share_out(self.available, weights)
        """Global batches of each in an epoch."""
        short = [self._too_few(number) for number, batches in enumerate(self.available) if not batches]
        if not sum(self.shares):
            raise DataError(f"No data set fills one batch: {' '.join(short)} Lower the batch size.")
        for sentence in short:
            logger.warning("%s None is drawn from it.", sentence)

    def epoch(self, epoch: int) -> Iterator[tuple[int, Rows]]:
        """Yield the number of a data set and the rows of a global batch of it, the same for the same seed and epoch."""
        order = np.repeat(np.arange(len(self.shares)), self.shares)
        self._generator(epoch).shuffle(order)
        streams = [self._stream(epoch, number) for number in range(len(self.parts))]
        for number in order.tolist():
            yield number, next(streams[number])

    def _stream(self, epoch: int, number: int) -> Iterator[Rows]:
        """Yield global batches of one data set for ever: a set that is drained is shuffled and begun again."""
        for turn in count():
            empty = True
            for rows in self.parts[number].once(self._generator(epoch, number, turn)):
                empty = False
                yield rows
            if empty:  # where texts are few, not every order fills a batch; the one that was counted does
                yield from self.parts[number].once(self._generator(0, number, 0))

    def _generator(self, *of: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=of))

    def _pass_length(self, number: int) -> int:
        part = self.parts[number]
        if not part.shared:
            return part.rows // part.size
        return sum(1 for _ in part.once(self._generator(0, number, 0)))

    def _too_few(self, number: int) -> str:
        part = self.parts[number]
        return (
            f"Set {self.names[number]!r} has {part.rows:,} rows, no {part.size:,} of them with texts that all differ."
        )


class MixtureBatchSampler(MultiDatasetDefaultBatchSampler):
    """Every step one data set, the same on all processes, and no text twice in its global batch."""

    def __init__(
        self,
        dataset: ConcatDataset[Any],
        batch_samplers: Sequence[BatchSampler],
        *,
        sampling: Sampling,
        generator: torch.Generator | None = None,
        seed: int | None = 0,
    ) -> None:
        """Take the trainer's data sets and its batch size; its samplers and generator are not drawn from.

        Raises DataError where no data set has rows for one global batch.
        """
        super().__init__(dataset, list(batch_samplers), generator, seed or 0)
        self.drop_last = True
        self.processes = sampling.processes or processes().num_processes
        self.draws = Draws(
            dataset.datasets,
            self.batch_size * self.processes,
            seed=self.seed,
            names=sampling.names,
            weights=sampling.weights,
        )

    def __len__(self) -> int:
        """Return the number of batches of all processes in an epoch, a multiple of the processes."""
        return sum(self.draws.shares) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this epoch, those of all processes in turn, as rows of the joined data sets."""
        starts = [0, *accumulate(len(part) for part in self.dataset.datasets)]
        for number, drawn in self.draws.epoch(self.epoch):
            rows = (drawn + starts[number]).tolist()
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The trainer's `multi_dataset_batch_sampler`: call it to make the sampler."""

    names: tuple[str, ...] = ()
    """Of the data sets, for messages."""
    weights: tuple[float, ...] | None = None
    """Relative numbers of steps; by their rows without them."""
    processes: int | None = None
    """As many as there are without it."""

    def __call__(
        self,
        dataset: ConcatDataset[Any],
        batch_samplers: Sequence[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int | None = 0,
    ) -> MixtureBatchSampler:
        """Return the sampler, as the trainer asks for it."""
        return MixtureBatchSampler(dataset, batch_samplers, sampling=self, generator=generator, seed=seed)


class KeepEpoch(TrainerCallback):
    """Tell the sampler which epoch it is, on every process.

    Where a run of several processes is resumed within an epoch, accelerate wraps the sampler twice, and neither it nor
    the trainer looks deeper than once: every process would draw the batches of epoch 0.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Reach for the sampler below all wrappers."""
        sampler = train_dataloader
        while (sampler := getattr(sampler, "batch_sampler", None)) is not None:
            if isinstance(sampler, MixtureBatchSampler):
                sampler.set_epoch(int(state.epoch or 0))


def _is_text(dataset: Dataset, name: str) -> bool:
    return getattr(dataset.features[name], "dtype", "") in ("string", "large_string")
