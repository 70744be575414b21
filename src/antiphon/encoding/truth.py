"""The vectors that ways to run a model are judged by: a few texts in float32, and in its dtype, both plain.

In 16 bits they are kept in the cache under a hash of all that they depend on: the model with its configuration, the
texts, the dtype, the device and the releases. In float32 the two are one and nothing is kept.
N texts, D width of a vector.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer

from antiphon import compat
from antiphon.encoding.widened import widened
from antiphon.files import cache_folder, keep
from antiphon.model.fingerprint import cache_key

FORM = 1
"""Raised where the form or the meaning of what is kept changes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth:
    """Vectors of the same texts, (N, D) each."""

    float32: npt.NDArray[np.float32]
    theirs: npt.NDArray[np.float32]
    """In the model's own dtype, by sentence-transformers."""


def of(
    model: SentenceTransformer,
    plain: Callable[[SentenceTransformer, Sequence[str]], npt.NDArray[np.float32]],
    texts: Sequence[str],
) -> Truth:
    """Return the vectors of texts, from the cache where they are there; `plain` embeds texts with a model."""
    wide = widened(model)
    if wide is model:
        vectors = plain(model, texts)
        return Truth(vectors, vectors)
    path = cache_folder() / "truth" / f"{_key(model, texts)}.npz"
    kept = _read(path)
    if kept is None:
        kept = Truth(plain(wide, texts), plain(model, texts))
        _write(path, kept)
    return kept


def _key(model: SentenceTransformer, texts: Sequence[str]) -> str:
    parts: dict[str, Any] = {
        "form": FORM,
        "model": cache_key(model),
        "texts": list(texts),
        "dtype": str(model.dtype),
        "attention": compat.attention_of(model[0].model.config.get_text_config()),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "releases": [torch.__version__, transformers.__version__, sentence_transformers.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Truth | None:
    """Return what is kept, None where there is nothing or nothing that can be read: then it is made again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Truth(kept["float32"], kept["theirs"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError) as error:
        logger.info("%s cannot be read (%s); it is made again.", path, error)
        return None


def _write(path: Path, kept: Truth) -> None:
    """Keep vectors; a cache that cannot be written to is no reason to fail."""
    buffer = io.BytesIO()
    np.savez(buffer, float32=kept.float32, theirs=kept.theirs)
    keep(path, buffer.getvalue())
