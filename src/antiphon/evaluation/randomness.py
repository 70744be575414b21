"""mteb seeds random, numpy and torch at every turn, also when it is imported: a training run must not feel that.

Nor must a process see any of it: what mteb logs and datasets draws is silent meanwhile, and only then.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import numpy as np
import torch


@contextmanager
def kept() -> Iterator[None]:
    """Put the global generators back as they were when the block ends, and silence mteb and datasets within it."""
    logger, bars = logging.getLogger("mteb"), not datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    if bars:
        datasets.disable_progress_bars()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)
