"""Which prompt a side gets: the one answer for encode, show, parity, evaluate, mine, search, serve, export and train.

A prompt is the string that sentence-transformers is handed as `prompt`. It is the model's own for the side, one that
the model knows by name, or what `prompt_for` makes of an instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError
from antiphon.text.template import Side, fills_slots, no_prompt_slot, prompt_for, template_of

PROMPT_NAMES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The names under which `encode_query` and `encode_document` look for a prompt, in sentence-transformers' order."""

ENCODE_METHODS: Mapping[Side | None, str] = {None: "encode", "query": "encode_query", "document": "encode_document"}
"""The method that embeds a side's texts, of a SentenceTransformer and of an Encoder; None is a text of no side."""


def encode_method(embedder: Any, side: Side | None) -> Callable[..., Any]:
    """Return the method of a SentenceTransformer or an Encoder that embeds the texts of a side.

    Example:
        >>> import antiphon
        >>> from antiphon.model.prompts import encode_method
        >>> encode_method(antiphon.build("nano"), "document").__name__
        'encode_document'
    """
    method: Callable[..., Any] = getattr(embedder, ENCODE_METHODS[side])
    return method


def prompt_name_of(model: SentenceTransformer, side: Side | None) -> str | None:
    """Return the name of the prompt that a side takes by itself; None is what `encode` without a task takes.

    Where the model has no prompt for the side, that is its default prompt, as in sentence-transformers.
    """
    names = () if side is None else PROMPT_NAMES[side]
    return next((name for name in names if name in (model.prompts or {})), model.default_prompt_name)


def side_of(prompt_name: str | None) -> Side | None:
    """Return the side that a prompt's name stands for, None for a name that stands for neither."""
    return next((side for side, names in PROMPT_NAMES.items() if prompt_name in names), None)


def prompt_of(
    model: SentenceTransformer, side: Side | None, *, instruction: str | None = None, prompt_name: str | None = None
) -> str:
    """Return the prompt of a side: of an instruction, of a name, or the model's own where neither is given.

    Raises ConfigError for a name that the model does not have, and for an instruction that it has no place for.

    Example:
        >>> import antiphon
        >>> model = antiphon.build("nano", "echo", prompts={"query": "Find the function"})
        >>> prompt_of(model, "query")
        'Find the function'
        >>> prompt_of(model, "query", instruction="Find the bug")
        'Find the bug'
    """
    if instruction is not None:
        check_place(model, instruction, side or "query")
        return prompt_for(model, instruction, side or "query")
    prompts = model.prompts or {}
    if prompt_name is not None and prompt_name not in prompts:
        names = ", ".join(sorted(prompts)) or "none"
        raise ConfigError(f"This model has no prompt named {prompt_name[:60]!r}; it has {names}.")
    chosen = prompt_name_of(model, side) if prompt_name is None else prompt_name
    return (prompts.get(chosen) or "") if chosen is not None else ""


def has_place(model: SentenceTransformer, side: Side) -> bool:
    """Return whether a model takes an instruction on a side: where its template says so, one of others for queries."""
    template = template_of(model)
    return side == "query" if template is None else template.takes_instruction(side)


def check_place(model: SentenceTransformer, instruction: str, side: Side) -> None:
    """Raise a ConfigError where a model, of a template or of others, has no place for an instruction on a side."""
    if not instruction or has_place(model, side):
        return
    template = template_of(model)
    if template is not None:
        raise ConfigError(no_prompt_slot(template.name, side))
    raise ConfigError(
        f"This model was not built by antiphon, and has no place for an instruction on the {side} side; leave it out, "
        f'or give it the whole prefix that it knows by model.prompts["{side}"] = "...".'
    )


def instruct(model: SentenceTransformer, instructions: Mapping[str, str]) -> None:
    """Let a model say these instructions by itself: they become its prompts of the same names, in place.

    "query" is what `encode_query` says and "document" what `encode_document` says, as in `antiphon.build`; any other
    name is asked for by `prompt_name=` and stands on the query side. Raises ConfigError for an instruction that the
    model has no place for.
    """
    template = template_of(model)
    for name, instruction in instructions.items():
        side = side_of(name) or "query"
        check_place(model, instruction, side)
        model.prompts = {**(model.prompts or {}), name: prompt_for(model, instruction, side)}
    if template is not None and not fills_slots(model) and (model.prompts or {}).get("query"):
        model.default_prompt_name = "query"  # no task means the query variant, also where that variant is a prefix
