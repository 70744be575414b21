"""From the name of a model, as a command line has it, to an embedder: a saved one is loaded, a language model built."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import load_file_path

from antiphon.errors import ConfigError
from antiphon.model.adapted import adapt
from antiphon.model.build import Dtype, build
from antiphon.model.checkpoint import RUN, load
from antiphon.model.prompts import PROMPT_NAMES, instruct, prompt_of
from antiphon.modules import PoolingMode
from antiphon.text.template import Side, Template

SHAPE = ("template", "pooling", "max_tokens", "layers", "bidirectional")
"""The settings that turn a language model into an embedder; a saved embedder has them."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is opened; None leaves what `build` or the saved embedder says.

    Example:
        >>> import antiphon
        >>> options = antiphon.ModelOptions(template="classical-write", pooling="mean", max_tokens=64)
        >>> antiphon.open_model("nano", options).get_embedding_dimension()
        256
    """

    template: str | Template | None = None
    """For a language model: a template's name, or a text with a {text} slot."""
    pooling: PoolingMode | None = None
    """For a language model: last, mean or weighted_mean."""
    max_tokens: int | None = None
    """For a language model: tokens of a sequence with one copy of the text."""
    layers: int | Literal["auto"] | None = None
    """For a language model: the first layers that are kept; "auto" is the command line's, by `choose_layers`."""
    bidirectional: bool | None = None
    """For a language model: whether tokens see later ones."""
    prompt: str | None = None
    """An instruction, which the model then says by itself on the side that is asked for."""
    prompt_name: str | None = None
    """The name of one of the model's prompts, which it then says by itself on that side."""
    adapter: str | None = None
    """A LoRA adapter, a folder or a hub id, that is put on and merged."""
    dtype: Dtype = "auto"
    """Of the weights: float32, bfloat16, float16, or auto for what the folder says."""
    device: str | None = None
    """Where it runs: cpu, cuda, cuda:1, mps; sentence-transformers' choice without it."""

    @property
    def shape(self) -> dict[str, Any]:
        """The settings of SHAPE that are given."""
        return {name: getattr(self, name) for name in SHAPE if getattr(self, name) is not None}

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, field.name) != field.default for field in fields(self))


def open_model(name: str | Path, options: ModelOptions | None = None, *, side: Side = "query") -> SentenceTransformer:
    """Return the embedder in a folder or on the hub, or build one from a language model's folder, hub id or "nano".

    `side` is the one that `options.prompt` and `options.prompt_name` speak of.

    Raises ConfigError where a saved embedder is given a shape, which it has already, and for a prompt that has no
    place or no such name; besides what `load`, `build` and `adapt` raise.

    Example:
        >>> import antiphon
        >>> model = antiphon.open_model("nano", antiphon.ModelOptions(template="echo", prompt="Find the function"))
        >>> model.prompts["query"]
        'Find the function'
    """
    chosen = options or ModelOptions()
    if not is_embedder(str(name)):
        model = build(name, dtype=chosen.dtype, device=chosen.device, **chosen.shape)
    elif chosen.shape:
        given = ", ".join(f"--{key.replace('_', '-')}" for key in chosen.shape)
        raise ConfigError(f"{name} is a saved embedder, whose shape is settled; leave {given} out.")
    else:
        model = load(name, dtype=chosen.dtype, device=chosen.device)
    if chosen.adapter is not None:
        adapt(model, chosen.adapter)
    _say(model, chosen, side)
    return model


def is_embedder(name: str) -> bool:
    """Return whether a folder or hub id is a saved embedder rather than a language model."""
    if name == "nano":
        return False
    folder = Path(name)
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        return (folder / "modules.json").exists() or (folder / RUN).exists()
    return load_file_path(name, "modules.json") is not None


def _say(model: SentenceTransformer, options: ModelOptions, side: Side) -> None:
    """Let the model say the prompt that is asked for, on a side, by itself."""
    if options.prompt is not None and options.prompt_name is not None:
        raise ConfigError("A prompt is given by its text or by its name, not by both; leave one out.")
    own = next((name for name in PROMPT_NAMES[side] if name in (model.prompts or {})), side)
    if options.prompt is not None:
        instruct(model, {own: options.prompt})
    elif options.prompt_name is not None:
        model.prompts = {**(model.prompts or {}), own: prompt_of(model, side, prompt_name=options.prompt_name)}
