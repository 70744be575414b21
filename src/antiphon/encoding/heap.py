"""What the C library does with memory that is freed: it gives large pieces back to the system and takes them anew.

Each page that comes anew is filled with zeros by the kernel. Other C libraries than glibc are left as they are.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import torch

KEPT = 32 << 20
"""Bytes of the largest piece of memory that glibc would keep when it is freed."""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""mallopt's numbers for its settings."""
_INSIDE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 256 << 20}
_OUTSIDE = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: KEPT, _TRIM_THRESHOLD: 2 * KEPT, _TOP_PAD: 128 << 10}


def keep_heap() -> None:
    """Have the C library keep freed memory for the next layer instead of giving it back and taking it page by page.

    glibc raises what it keeps to twice the largest piece that was ever freed, up to 64 MiB.
    """
    piece = torch.empty(KEPT - 2 * mmap.PAGESIZE, dtype=torch.uint8)
    del piece


@contextmanager
def whole_heap() -> Iterator[None]:
    """Have the C library keep all that is freed within the block, of any size; it goes back to the system behind it.

    A training step frees its activations and its gradients, and takes as much in the next step.

    Example:
        >>> from antiphon.encoding.heap import whole_heap
        >>> with whole_heap():
        ...     sum(range(4))
        6
    """
    _set(_INSIDE)
    try:
        yield
    finally:
        _set(_OUTSIDE)
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _set(settings: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)
