"""Dropout off for a while."""

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
