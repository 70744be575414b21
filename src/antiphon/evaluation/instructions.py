"""The instruction of every task: the user's file first, then prompts.toml, then the words that mteb gives the query.

An instruction goes to the query side only, by `prompts.prompt_of`. One that is wanted and not there is an error:
a sentence made up for an unknown task would change the score without a word.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError
from antiphon.model.prompts import prompt_of
from antiphon.text.template import Side, Template, template_of

OWN = "own"
"""Asks for the model's own prompts instead of any instruction."""
COLON = ("anchor", "anchor-chatml", "llm2vec")
"""Templates whose authors evaluate with a colon where they train with a semicolon."""
Instructions = Mapping[str, str] | str | Path | None
"""Instructions by task, or their JSON file; "own"; or None for the shipped ones where the model takes any."""


@cache
def shipped() -> Mapping[str, str]:
    """Return the instructions of prompts.toml, by task."""
    table: dict[str, str] = tomllib.loads(
        files("antiphon.evaluation").joinpath("prompts.toml").read_text(encoding="utf-8")
    )
    return table


def read(instructions: Instructions) -> Mapping[str, str] | None:
    """Return the user's instructions by task, None where there are none; ConfigError for a file that is no such table.

    The layout is that of the Anchor and LLM2Vec repositories: one JSON object, task to instruction, where a colon that
    ends an instruction is the separator (see `separated`).
    """
    if instructions is None or instructions == OWN:
        return None
    if isinstance(instructions, str | Path):
        try:
            raw = json.loads(Path(instructions).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"The instructions {instructions} cannot be read as JSON ({error}).") from None
    else:
        raw = dict(instructions)
    if not isinstance(raw, dict):
        raise ConfigError(f"The instructions {instructions} are no JSON object of task names and instructions.")
    for task, words in raw.items():
        if not isinstance(task, str) or not isinstance(words, str):
            raise ConfigError(f"The instruction of {task!r} is {words!r:.80}; a string is wanted.")
    return raw


def takes_instruction(model: SentenceTransformer) -> bool:
    """Return whether the model takes instructions: its template has a slot, or its own prompts are instructions."""
    template = template_of(model)
    if template is not None:
        return template.takes_instruction("query")
    return any("instruct" in prompt.lower() for prompt in (model.prompts or {}).values())


def says_own(model: SentenceTransformer, instructions: Instructions) -> bool:
    """Return whether a model is to say its own prompts: they were asked for, or it takes no instruction by itself."""
    return instructions == OWN or (instructions is None and not takes_instruction(model))


def instruction_for(task: str, metadata: Any, given: Mapping[str, str] | None) -> str:
    """Return the instruction of a task; `metadata` is mteb's, None for a task that mteb does not know.

    Raises ConfigError naming the task where there is none.
    """
    for table in (given or {}, shipped()):
        if task in table:
            return table[task]
        of_parts = {table.get(part.metadata.name) for part in getattr(metadata, "tasks", ())}
        if len(of_parts) == 1 and None not in of_parts:
            return str(of_parts.pop())  # a file that names every part of a task of parts
    words = getattr(metadata, "prompt", None)
    found = words.get("query") if isinstance(words, Mapping) else words
    if not found:
        raise ConfigError(
            f"There is no instruction for the task {task!r} and the model takes one; give it in a JSON file, "
            f'{{"{task}": "Given a question, ..."}}, by --instructions (an empty string for none), or pass '
            f"--instructions {OWN} to use the model's own prompts."
        )
    return str(found)


def chosen(
    model: SentenceTransformer, instructions: Instructions, given: Mapping[str, str] | None, task: str, metadata: Any
) -> str:
    """Return the instruction that the model is to get on a task, empty for none."""
    if says_own(model, instructions):
        return ""
    template = template_of(model)
    if template is not None and not template.takes_instruction("query"):
        return ""  # it has no place for one
    return separated(instruction_for(task, metadata, given), template)


def separated(instruction: str, template: Template | None) -> str:
    """Return an instruction with the separator that a model is evaluated with.

    A colon at its end takes the place of a `;` behind the template's slot; any other template has a separator of its
    own, so the colon goes. The templates of LLM2Vec and Anchor, trained with `; `, are evaluated with `: ` always.
    """
    bare = instruction.strip().removesuffix(":").rstrip()
    if not bare or template is None or not parts_with_semicolon(template):
        return bare
    colon = instruction.strip().endswith(":") or template.name in COLON
    return f"{bare.rstrip('.')}:" if colon else bare


def parts_with_semicolon(template: Template) -> bool:
    """Return whether a `;` stands right behind the query's instruction."""
    return any(
        before.kind == "prompt" and after.kind == "frame" and after.content.startswith(";")
        for before, after in pairwise(template.pieces("query"))
    )


def prompts_for(model: SentenceTransformer, instruction: str, *, own: bool) -> dict[Side, str]:
    """Return what goes to sentence-transformers as prompt, by side; documents get the model's own prompt."""
    query = prompt_of(model, "query", instruction=None if own else instruction)
    return {"query": query, "document": prompt_of(model, "document")}


def digest(instructions: Mapping[str, str]) -> str:
    """Return the hash of what was said to which task."""
    return hashlib.sha256(json.dumps(sorted(instructions.items())).encode()).hexdigest()[:16]
