"""Builds the C files beside it where the processor and a compiler allow, and loads them; kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from antiphon.encoding.processor import has
from antiphon.errors import DataError
from antiphon.files import cache_folder, keep, scratch

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fopenmp")
COMPILERS = ("cc", "gcc", "clang")
LONGEST_BUILD = 120
"""Seconds."""
OPTIONS = {"avx512_bf16": "avx512bf16", "amx_tile": "amx-tile", "amx_bf16": "amx-bf16"}
"""What a compiler calls a feature of the processor, where Linux calls it otherwise."""
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18
"""A call of Linux on x86-64, what it is asked for, and what of the processor."""
VECTORS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
TILES = (*VECTORS, "amx_tile", "amx_bf16")
"""What files need of the processor: 16 numbers at a time, or its tiles as well."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NativeSource:
    """A C file of this folder, and what Linux must say that the processor has for it."""

    name: str
    features: tuple[str, ...]
    faster: tuple[str, ...] = ()
    """What it is built for in their place where the processor has all of it."""

    def missing(self) -> str | None:
        """Return why it cannot be run here, as the end of a sentence; None where it can. Builds it if need be.

        Example:
            >>> NativeSource("attention", ("a_feature_of_no_processor",)).missing()
            'the processor has no a_feature_of_no_processor'
        """
        return _reason(self)

    @property
    def taken(self) -> tuple[str, ...]:
        """The features that it is built for here."""
        return self.faster if self.faster and not _absent(self.faster) else self.features

    @property
    def library(self) -> ctypes.CDLL:
        """The functions of the file. Raises OSError or SubprocessError where it cannot be built or loaded."""
        return _loaded(self)


def places(*tensors: torch.Tensor | None) -> list[ctypes.c_void_p]:
    """Return where tensors begin, as a C function takes them; None is NULL."""
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


@cache
def _reason(source: NativeSource) -> str | None:
    """Return why a source cannot be run; it is asked once, and said where the processor is not to blame."""
    if absent := _absent(source.taken):
        return absent
    try:
        _loaded(source)
    except (OSError, subprocess.SubprocessError, DataError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        why = f"its C code cannot be built or loaded: {' '.join(said.split())}"
        logger.info("What is faster on this processor (%s) is not there, because %s.", source.name, why)
        return why
    return None


def _absent(features: tuple[str, ...]) -> str | None:
    """Return which of these the processor or the system does not give, None where they are all there."""
    if absent := [feature for feature in features if not has(feature)]:
        return f"the processor has no {' and no '.join(absent)}"
    return None if "amx_tile" not in features or _tiles_permitted() else "the system lets no process use its tiles"


@cache
def _tiles_permitted() -> bool:
    """Return whether Linux lets this process use the processor's tiles; it has to be asked once."""
    refused: int = ctypes.CDLL(None).syscall(*map(ctypes.c_long, (ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA)))
    return not refused


@cache
def _loaded(source: NativeSource) -> ctypes.CDLL:
    """Return the library, from the user's cache where it is there."""
    path = FOLDER / f"{source.name}.c"
    words = [*_compiler(), *FLAGS, *(f"-m{OPTIONS.get(feature, feature)}" for feature in source.taken)]
    read = [file.read_bytes() for file in (path, *sorted(FOLDER.glob("*.h")))]
    digest = hashlib.sha256(repr((read, words)).encode()).hexdigest()
    kept = cache_folder() / "native" / f"{source.name}-{digest}.so"
    if kept.is_file():
        try:
            return ctypes.CDLL(str(kept))
        except OSError as error:
            logger.info("%s cannot be loaded (%s); it is built again.", kept, error)
    with scratch() as folder:
        made = folder / kept.name
        command = [*words, str(path), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST_BUILD)
        keep(kept, made.read_bytes())
        return ctypes.CDLL(str(made))


def _compiler() -> list[str]:
    """Return the words that call the C compiler: $CC, else what is there. Raises OSError where there is none."""
    if named := os.environ.get("CC"):
        return shlex.split(named)
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is None:
        raise OSError(f"there is no C compiler: $CC is not set, and none of {', '.join(COMPILERS)} is installed")
    return [found]
