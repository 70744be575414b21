"""Which process this is, under torchrun, accelerate launch or neither."""

from __future__ import annotations

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Return accelerate's state: rank, number of processes, and a barrier.

    Without a GPU accelerate joins the processes of torchrun only when it is told that the CPU is meant.
    """
    return PartialState(cpu=not torch.cuda.is_available())
