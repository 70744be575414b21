"""Evaluate: tasks one by one, each score kept as soon as it is there.

A score is kept under a hash of all that it depends on: the model's weights, tokenizer, configuration and template, the
prompts, the data, the seed and mteb's version. So no model is ever shown another's score, and a run that died goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon import nano
from antiphon.evaluation import instructions as instructing
from antiphon.evaluation import randomness
from antiphon.evaluation.caching import default_folder, key_of
from antiphon.evaluation.embedding import Encode, VectorStore, encoder
from antiphon.evaluation.instructions import OWN, Instructions
from antiphon.evaluation.scores import Scores, TaskScore
from antiphon.evaluation.selecting import Selected, SelectedProbe, Selection, quiet, select
from antiphon.evaluation.turns import Turns
from antiphon.fingerprint import fingerprint
from antiphon.template import template_of

SEED = 42
"""mteb's own."""
Tasks = str | Path | Sequence[str | Path]
OnTask = Callable[[str, int, int], None]
"""Told the task that is begun, its number from 1, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to evaluate, beside the model and the tasks."""

    instructions: Instructions = None
    limit: int | None = None
    seed: int = SEED
    budget: int | None = None
    cache: Path | None = None


def evaluate(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    tasks: Tasks,
    *,
    out: str | Path | None = None,
    instructions: Instructions = None,
    limit: int | None = None,
    seed: int = SEED,
    budget: int | None = None,
    label: str | None = None,
    cache: str | Path | bool = True,
    on_task: OnTask | None = None,
) -> Scores:
    """Score a model on tasks, by mteb's metrics; `scores["STSBenchmark"].main` is a float between 0 and 1.

    `tasks` are names of mteb's tasks, named sets (`antiphon.evaluation.SETS`), or local files and folders. `limit` caps
    the examples of local tasks, drawn with the seed. `instructions` is a table or JSON file by task name, over the
    shipped ones, or "own" for the model's own prompts. `out` is a folder for the scores and their examples. `label` is
    what tables call the run. `budget` is the tokens of a forward pass, found by a probe without it. `cache` is True
    for the user's cache, a folder, or False.

    Raises ConfigError for a task or setting that cannot be used and for an instruction that is missing, DataError for
    data that cannot be scored honestly, ModelError for a vector that is NaN or zero.
    """
    folder = None if cache is False else default_folder() if cache is True else Path(cache)
    settings = Settings(instructions=instructions, limit=limit, seed=seed, budget=budget, cache=folder)
    with randomness.kept():
        quiet()
        scores = run(model, select(tasks, limit=limit, seed=seed), settings, label=label, on_task=on_task)
    if out is not None:
        scores.save(out)
    return scores


def run(
    model: SentenceTransformer,
    selected: Sequence[Selection],
    settings: Settings,
    *,
    label: str | None = None,
    identity: str | None = None,
    encode: Encode | None = None,
    on_task: OnTask | None = None,
) -> Scores:
    """Score a model on selected tasks, in order; instructions are looked up for all of them before any is run.

    `identity` stands for the model's fingerprint, for a model that changes from call to call and has no cache;
    `encode` is what embeds, where that is there already.
    """
    given = instructing.read(settings.instructions)
    words = {
        task.name: instructing.chosen(model, settings.instructions, given, task.name, task.metadata)
        for task in selected
        if isinstance(task, Selected)
    }
    own = settings.instructions == OWN or (given is None and not instructing.hears(model))
    identity = identity or fingerprint(model)
    encode = encode or encoder(model, budget=settings.budget)
    store = VectorStore(settings.cache / "vectors" / f"{identity[:32]}.sqlite") if settings.cache is not None else None
    try:
        turns = Turns(model, identity, settings.seed, encode, settings.cache, store)
        found: dict[str, TaskScore] = {}
        for number, task in enumerate(selected, start=1):
            if on_task is not None:
                on_task(task.name, number, len(selected))
            if isinstance(task, SelectedProbe):
                found[task.name] = turns.probe(task)
            else:
                prompts = instructing.prompts_for(model, words[task.name], own=own)
                found[task.name] = turns.task(task, words[task.name], prompts)
    finally:
        if store is not None:
            store.close()
    spelled = template_of(model)
    name = label or getattr(model.model_card_data, "model_name", None) or (spelled.name if spelled else "model")
    return Scores(
        model=_name(model),
        label=str(name),
        revision=key_of({"model": identity, "instructions": sorted(words.items())}),
        instructions=instructing.digest(words),
        tasks=found,
        settings={
            "seed": settings.seed,
            "limit": settings.limit,
            "template": spelled.name if spelled else None,
        },
    )


def _name(model: SentenceTransformer) -> str:
    backbone = getattr(model[0], "model", None)
    name = str(getattr(getattr(backbone, "config", None), "_name_or_path", "") or type(model[0]).__name__)
    return "nano" if name == str(nano.folder()) else name
