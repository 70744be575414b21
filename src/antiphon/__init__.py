"""Antiphon turns a causal language model into a text embedder."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from antiphon.corpus.embed import embed, search
    from antiphon.corpus.mining import mine
    from antiphon.encoding import Encoder
    from antiphon.evaluation import compare, evaluate
    from antiphon.exporting import export
    from antiphon.model.build import build
    from antiphon.model.checkpoint import load, save
    from antiphon.training import train

# Nothing is imported before it is used: `antiphon --help` must not wait for torch.
_HOMES = {
    "Encoder": "antiphon.encoding",
    "build": "antiphon.model.build",
    "load": "antiphon.model.checkpoint",
    "save": "antiphon.model.checkpoint",
    "embed": "antiphon.corpus.embed",
    "search": "antiphon.corpus.embed",
    "compare": "antiphon.evaluation",
    "evaluate": "antiphon.evaluation",
    "export": "antiphon.exporting",
    "mine": "antiphon.corpus.mining",
    "train": "antiphon.training",
}

__all__ = ["Encoder", "build", "compare", "embed", "evaluate", "export", "load", "mine", "save", "search", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
