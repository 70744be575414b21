"""Memory that is freed inside the block stays with the process, and goes back behind it."""

from __future__ import annotations

import ctypes
import resource

import pytest
import torch

from antiphon.encoding.heap import whole_heap

MIB = 1 << 20
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")


def new_pages(size: int) -> int:
    """Return how many pages the kernel has to give for a tensor that is written once and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@glibc
def test_memory_is_taken_from_the_system_once():
    with whole_heap():
        for _ in range(3):  # the heap may have to grow twice before a piece fits between others
            again = new_pages(200 * MIB)
    behind = new_pages(200 * MIB)
    assert again < 100
    assert behind > 1000 or behind >= 200 * MIB // (2 * MIB)  # pages of 4 KiB, or huge ones


@glibc
def test_it_goes_back_where_the_block_fails():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def fail() -> None:
        with whole_heap():
            new_pages(300 * MIB)
            raise ValueError("a step failed")

    before = resident()
    with pytest.raises(ValueError, match="a step"):
        fail()
    assert resident() < before + 200 * MIB
