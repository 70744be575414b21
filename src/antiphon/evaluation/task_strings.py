"""What a model would get on each task, word for word, before anything is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon.evaluation import instructions as instructing
from antiphon.evaluation import randomness
from antiphon.evaluation.instructions import Instructions
from antiphon.evaluation.selection import Selected, select
from antiphon.text.template import Side, fills_slots, template_of

TEXT = "{text}"
"""What stands for a text in a string."""
WITH_PASSAGES = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")
"""Types of mteb's tasks whose documents are encoded as documents; in all others every text is a query."""


@dataclass(frozen=True)
class TaskStrings:
    """The strings of one task, with {text} for the text; without BOS, and EOS only where it stands in the template."""

    task: str
    instruction: str
    query: str
    passage: str | None
    """None where every text is a query."""


def task_strings(
    model: SentenceTransformer,
    tasks: str | Path | Sequence[str | Path],
    *,
    instructions: Instructions = None,
) -> list[TaskStrings]:
    """Return what the model would get on each task; probes, which have texts of their own, are left out.

    Raises what `evaluate` raises for tasks and instructions.
    """
    with randomness.kept():
        selected = select(tasks, limit=None, seed=0)
    given = instructing.read(instructions)
    own = instructing.says_own(model, instructions)
    found = []
    for task in selected:
        if not isinstance(task, Selected):
            continue
        words = instructing.chosen(model, instructions, given, task.name, task.metadata)
        prompts = instructing.prompts_for(model, words, own=own)
        passages = kind_of(task) in WITH_PASSAGES
        passage = whole(model, prompts["document"], "document") if passages else None
        found.append(TaskStrings(task.name, words, whole(model, prompts["query"], "query"), passage))
    return found


def kind_of(task: Selected) -> str:
    """Return the type of a task as mteb calls it."""
    metadata = task.metadata if task.metadata is not None else task.load()[0].metadata
    return str(metadata.type)


def whole(model: SentenceTransformer, prompt: str, side: Side) -> str:
    """Return the whole string of a text under a prompt as sentence-transformers gets it."""
    template = template_of(model)
    if template is None:
        return prompt + TEXT
    if fills_slots(model) or template.in_tokenizer:
        return template.written(TEXT, prompt if fills_slots(model) else "", side)
    return prompt + TEXT
