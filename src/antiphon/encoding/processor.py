"""What Linux says of the processor."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def described(name: str) -> str:
    """Return what Linux says of the processor under a name, such as "model name"; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def has(feature: str) -> bool:
    """Return whether the processor has a feature, such as "amx_bf16", as Linux calls it."""
    return feature in described("flags").split()
