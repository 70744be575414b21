"""The options of every command that opens a model: one set, with one meaning, in one group of --help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from antiphon.cli.option_groups import OptionGroup, in_panel, with_groups

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from antiphon.model.opening import ModelOptions
    from antiphon.text.template import Side

PANEL = "The model"
AUTO = "auto"


_option = in_panel(PANEL)
MODEL_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "template": (
        str | None,
        _option("For a language model: a template's name, or a text with a {text} slot."),
    ),
    "pooling": (str | None, _option("For a language model: last, mean or weighted_mean.")),
    "layers": (
        str | None,
        _option(
            "For a language model: keep only so many of its first layers; auto chooses by unlabelled docstrings.",
            metavar="NUMBER|auto",
        ),
    ),
    "max_tokens": (int | None, _option("For a language model: tokens of a sequence with one copy of the text.")),
    "bidirectional": (
        bool | None,
        _option("For a language model: let tokens see later ones.", "--bidirectional"),
    ),
    "prompt": (str | None, _option("An instruction; the model's own prompt without it.")),
    "prompt_name": (str | None, _option("One of the model's prompts, by its name.")),
    "adapter": (str | None, _option("A LoRA adapter to put on the model: a folder or a hub id.")),
    "dtype": (str | None, _option("Of the weights: float32, bfloat16, float16; as they are stored without it.")),
    "device": (str | None, _option("Where it runs: cpu, cuda, cuda:1, mps; found by itself without it.")),
}
"""The types and options by the names of `ModelOptions`."""
BatchTokens = Annotated[int | None, _option("Tokens of a forward pass; found by itself without it.")]


class CompileOption(StrEnum):
    """Whether the layers are compiled."""

    auto = "auto"
    on = "on"
    off = "off"

    @property
    def setting(self) -> bool | Literal["auto"]:
        """The Encoder's."""
        return "auto" if self is CompileOption.auto else self is CompileOption.on


Compile = Annotated[
    CompileOption, _option("Compile the layers: auto does where that pays for the texts to come.", "--compile")
]


def _number_or_word(value: str) -> int | str:
    """Return the number that a value spells, else the value, which who reads it may know or refuse."""
    try:
        return int(value)
    except ValueError:
        return value


def _model_options(given: dict[str, Any]) -> ModelOptions:
    from antiphon.cli import report

    with report.waiting("importing torch, transformers and sentence-transformers"):
        from antiphon.model.opening import ModelOptions

    if "layers" in given:
        given["layers"] = _number_or_word(given["layers"])
    return ModelOptions(**given)


MODEL_GROUP = OptionGroup("options", MODEL_OPTIONS, _model_options)
with_model_options = with_groups(MODEL_GROUP)
"""Give a command the options of MODEL_OPTIONS; it gets them as its parameter `options`, a `ModelOptions`."""


def open_named(
    name: str, options: ModelOptions | None = None, *, side: Side = "query", calibrated: bool = False
) -> SentenceTransformer:
    """Open a saved embedder, or build one from a language model, with the libraries' own noise silenced.

    `calibrated` says that its vectors will be, which is asked where the number of layers is to be chosen.
    """
    from antiphon.cli import report
    from antiphon.model.library_messages import quiet
    from antiphon.model.opening import is_embedder, open_model

    quiet()
    choosing = options is not None and options.layers == AUTO and not is_embedder(name)
    if options is not None and choosing:
        options = replace(options, layers=None)
    with report.waiting(f"opening {name}"):
        model = open_model(name, options, side=side)
    if choosing:
        _cut(model, calibrated)
    return model


def _cut(model: SentenceTransformer, calibrated: bool) -> None:
    """Keep as many of the model's first layers as docstrings say, and tell how many."""
    from antiphon.cli import report
    from antiphon.encoding.layer_choice import choose_layers
    from antiphon.model.layers import keep_layers

    choice = choose_layers(model, calibrated=calibrated)
    keep_layers(model[0].model, choice.layers)
    worth = choice.scores[choice.layers], choice.scores[max(choice.scores)]
    report.note(
        f"{choice.layers} of {max(choice.scores)} layers are kept: the halves of {choice.texts} docstrings find each "
        f"other there with a mean reciprocal rank of {worth[0]:.3f}, behind the last with {worth[1]:.3f}."
    )
