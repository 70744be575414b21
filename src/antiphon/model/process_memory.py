"""What this process keeps of memory that is free, or that only saves work: settings of the C library and of oneDNN."""

from __future__ import annotations

import mmap
import os

import torch

_HEAP = 32 << 20
"""Bytes of the largest piece of memory that glibc would keep when it is freed."""
_KERNELS = 128
"""Kernels for shapes of products that are kept: more than one forward pass has."""


def keep_heap() -> None:
    """Have the C library keep freed memory for the next layer instead of giving it back and taking it page by page.

    glibc raises what it keeps to twice the largest piece that was ever freed, up to 64 MiB; other libraries and GPUs
    are left as they are by this.
    """
    piece = torch.empty(_HEAP - 2 * mmap.PAGESIZE, dtype=torch.uint8)
    del piece


def keep_few_kernels() -> None:
    """Have oneDNN, and PyTorch above it, keep code for the latest shapes of 16-bit products and not for 1,024 of them.

    Both read their variable at the first such product of the process and never again, so this is said before a model
    first runs; what a user has set stands.
    """
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # oneDNN's older name for the same
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))
    os.environ.setdefault("LRU_CACHE_CAPACITY", str(_KERNELS))
