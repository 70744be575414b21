"""From the name of a model, as a command line has it, to an embedder: a saved one is loaded, a language model built."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import load_file_path
from transformers.utils import logging as transformers_logging

from antiphon.errors import ConfigError
from antiphon.model.build import build
from antiphon.model.checkpoint import RUN, load
from antiphon.text.template import Template


@dataclass(frozen=True)
class Shape:
    """What turns a language model into an embedder; None leaves `build`'s default."""

    template: str | Template | None = None
    pooling: str | None = None
    max_tokens: int | None = None
    layers: int | None = None
    bidirectional: bool | None = None


def open_model(name: str, shape: Shape | None = None, *, dtype: str = "auto") -> SentenceTransformer:
    """Return the embedder in a folder or on the hub, or build one from a language model's folder, hub id or "nano".

    Raises ConfigError where a saved embedder is given a shape, which it has already, and what `load` and `build` raise.
    """
    given: dict[str, Any] = {key: value for key, value in vars(shape or Shape()).items() if value is not None}
    if not _is_embedder(name):
        return build(name, dtype=dtype, **given)
    if given:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise ConfigError(f"{name} is a saved embedder, whose shape is settled; leave {options} out.")
    return load(name, dtype=dtype)


def quiet() -> None:
    """Silence progress bars, load reports and hints of the libraries below, no news to who asks for vectors."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def _is_embedder(name: str) -> bool:
    if name == "nano":
        return False
    folder = Path(name)
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        return (folder / "modules.json").exists() or (folder / RUN).exists()
    return load_file_path(name, "modules.json") is not None
