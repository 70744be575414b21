"""Which process this is, under torchrun, accelerate launch or neither."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState


def rank() -> int:
    """Return the number of this process, 0 where there is only one; before the processes are joined, too."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return how many processes there are; before they are joined, too."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes() -> PartialState:
    """Return accelerate's state of processes that are joined by it: their number, and a barrier.

    Without a GPU accelerate joins the processes of torchrun only when it is told that the CPU is meant.
    """
    return PartialState(cpu=not torch.cuda.is_available())
