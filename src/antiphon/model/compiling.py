"""How code is compiled: for sizes of any kind, in few variants, and kept for later processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from antiphon.files import cache_folder

COMPILED: dict[str, Any] = {"dynamic": True, "recompile_limit": 64}
"""Settings of the compiler. Variants of a piece of code beyond the limit run as they are; models of one process share
it, so it is above PyTorch's 8."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return a function or a module compiled; it is built at its first call."""
    run: Callable[Given, Result] = torch.compile(function, **COMPILED)
    return run


def keep_compiled() -> None:
    """Have what is compiled kept in the user's cache, unless the user named another place for it."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
