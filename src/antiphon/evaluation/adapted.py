"""A base with an adapter that was trained on it, for evaluation: loaded, and merged into the weights."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon.errors import ModelError, first_line
from antiphon.model.adapters import merge


def adapt(model: SentenceTransformer, adapter: str | Path) -> None:
    """Add the weights of a peft adapter, a folder or a hub id, to a model in place.

    Raises ModelError where there is none or where it does not fit.
    """
    try:
        model.load_adapter(str(adapter))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"The adapter {adapter} cannot be put on this model: {first_line(error)}") from error
    merge(model)
