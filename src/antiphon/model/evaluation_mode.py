"""Dropout off for a while, and a trainer's autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Have a module in evaluation mode within the block, and in the mode that it came in behind it."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextmanager
def own_forward(module: nn.Module) -> Iterator[None]:
    """Have a module's forward be its class's own within the block: a trainer puts one under autocast in its place."""
    put = module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if put is not None:
            module.__dict__["forward"] = put
