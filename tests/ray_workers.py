"""Ray in tests: what needs it, and the processes of a test's own workers."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra antiphon[scale]")


def workers(name: str) -> list[int]:
    """Return the processes of this test's Ray in which an actor of this name lives."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (folder / "cmdline").read_bytes() and _parent(_parent(int(folder.name))) == os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
