"""A base with an adapter that was trained on it, for evaluation: loaded, and merged into the weights."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon import compat
from antiphon.errors import foreign
from antiphon.model.adapters import merge
from antiphon.model.foreign_code import check_code
from antiphon.model.library_messages import hushed
from antiphon.model.weights import adapter_config, check_adapter, check_base


@hushed()
def adapt(model: SentenceTransformer, adapter: str | Path) -> None:
    """Add the weights of a peft adapter, a folder or a hub id, to a model in place.

    Raises ModelError where there is none, or where it is not one for this model, ConfigError where the installed
    releases cannot attach any.
    """
    compat.check_lora()
    adapter_config(str(adapter))
    check_code(str(adapter))
    check_base(model[0].model.config, str(adapter))
    with foreign(f"The adapter {adapter} cannot be put on this model"):
        model.load_adapter(str(adapter))
    check_adapter(model[0].model, str(adapter))
    merge(model)
