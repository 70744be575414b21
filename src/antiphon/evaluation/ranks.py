"""Tasks spread over the ranks of torchrun, the largest first to whom has least; and the scores of all, to all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import distributed

from antiphon.data.processes import world
from antiphon.errors import AntiphonError, DataError
from antiphon.evaluation.scores import TaskScore


def take_device() -> None:
    """Take the GPU of this rank, before a model is put on one."""
    if world() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def shares(sizes: Sequence[float], ranks: int) -> list[list[int]]:
    """Return the numbers of the items of each rank; every item is in one of them, the order within is that of items."""
    loads = [0.0] * ranks
    out: list[list[int]] = [[] for _ in range(ranks)]
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        least = min(range(ranks), key=lambda number: (loads[number], number))
        loads[least] += sizes[item]
        out[least].append(item)
    return [sorted(items) for items in out]


@contextmanager
def joined() -> Iterator[None]:
    """Join the ranks for the block, where they are not joined already; gloo does for scores, whatever the device."""
    own = world() > 1 and not distributed.is_initialized()
    if own:
        distributed.init_process_group("gloo")
    try:
        yield
    finally:
        if own:
            distributed.destroy_process_group()


def gathered(score: Callable[[], Mapping[str, TaskScore]]) -> dict[str, TaskScore]:
    """Score this rank's tasks and return those of all ranks; what failed on one rank is told on all."""
    found: Mapping[str, TaskScore] = {}
    failure: str | None = None
    try:
        found = score()
    except AntiphonError as error:
        failure = str(error)
        if world() == 1:
            raise
    if world() == 1:
        return dict(found)
    everyone: list[tuple[Mapping[str, TaskScore], str | None]] = [({}, None)] * world()
    distributed.all_gather_object(everyone, (found, failure))
    failures = [f"rank {number}: {words}" for number, (_, words) in enumerate(everyone) if words is not None]
    if failures:
        raise DataError(failures[0])
    return {name: one for scores, _ in everyone for name, one in scores.items()}
