"""Evaluate: tasks one by one, each score kept as soon as it is there.

A score is kept under a hash of all that it depends on: the model's weights, tokenizer, configuration and template, the
prompts, the data, the seed and mteb's version. So no model is ever shown another's score, and a run that died goes on.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks import AbsTask
from sentence_transformers import SentenceTransformer

from antiphon import nano
from antiphon.errors import DataError
from antiphon.evaluation import instructions as instructing
from antiphon.evaluation import randomness
from antiphon.evaluation.caching import default_folder, key_of, read_score, write_score
from antiphon.evaluation.costs import cost_of
from antiphon.evaluation.embedding import Embedder, Encode, VectorStore, encoder
from antiphon.evaluation.examples import sample_of
from antiphon.evaluation.instructions import OWN, Instructions
from antiphon.evaluation.scores import Scores, TaskScore
from antiphon.evaluation.selecting import Selected, quiet, select
from antiphon.evaluation.wrapper import TaskEncoder
from antiphon.fingerprint import fingerprint
from antiphon.template import Side, template_of

SEED = 42
"""mteb's own."""
_LOADED_AT_ONCE = 1024
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
    selected: Sequence[Selected],
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
    }
    own = settings.instructions == OWN or (given is None and not instructing.hears(model))
    identity = identity or fingerprint(model)
    encode = encode or encoder(model, budget=settings.budget)
    store = VectorStore(settings.cache / "vectors" / f"{identity[:32]}.sqlite") if settings.cache is not None else None
    try:
        found: dict[str, TaskScore] = {}
        for number, task in enumerate(selected, start=1):
            if on_task is not None:
                on_task(task.name, number, len(selected))
            prompts = instructing.prompts_for(model, words[task.name], own=own)
            turn = _Turn(model, task, words[task.name], prompts, identity, settings, encode, store)
            found[task.name] = turn.score()
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


@dataclass(frozen=True)
class _Turn:
    """One task's turn: a kept score, or the run that gives it."""

    model: SentenceTransformer
    task: Selected
    instruction: str
    prompts: Mapping[Side, str]
    identity: str
    settings: Settings
    encode: Encode
    store: VectorStore | None

    def score(self) -> TaskScore:
        loaded, notes = self.task.load()
        key = key_of(
            {
                "model": self.identity,
                "prompts": dict(self.prompts),
                "task": self.task.name,
                "revision": _revision(loaded),
                "splits": [loaded.eval_splits, loaded.hf_subsets],
                "seed": self.settings.seed,
                "mteb": mteb.__version__,
            }
        )
        cache = self.settings.cache
        known = None if cache is None else read_score(cache, key)
        if known is None:
            known = self._run(loaded, notes)
            if cache is not None:
                write_score(cache, key, known)
        return known

    def _run(self, task: AbsTask, notes: tuple[str, ...]) -> TaskScore:
        reseed(task, self.settings.seed)
        embedder = Embedder(self.encode, store=self.store)
        name = f"antiphon/{self.identity[:16]}"
        wrapped = TaskEncoder(self.model, embedder, self.prompts, name=name, revision=self.identity)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn and mteb, about labels that no text was given
            outcome = mteb.evaluate(
                wrapped,
                task,
                cache=None,
                co2_tracker=False,
                encode_kwargs={"batch_size": _LOADED_AT_ONCE, "show_progress_bar": False},
                prediction_folder=Path(folder),
                show_progress_bar=False,
            ).task_results[0]
            main = float(outcome.get_score())
            metrics = _metrics(outcome)
            sample = sample_of(task, main, metrics, Path(folder))
        if not np.isfinite(main):
            raise DataError(f"The score of {self.task.name} is {main}: its predictions are all alike, or its gold is.")
        return TaskScore(
            name=self.task.name,
            category=str(task.metadata.type),
            metric=str(task.metadata.main_score),
            main=main,
            metrics={name: value for name, value in metrics.items() if isinstance(value, float) and np.isfinite(value)},
            revision=_revision(task),
            instruction=self.instruction,
            cost=cost_of(self.model, embedder),
            notes=notes,
            sample=sample,
        )


def reseed(task: AbsTask, seed: int) -> None:
    """Set the generators of a task back, so that its second run draws what its first did."""
    for part in (task, *getattr(task.metadata, "tasks", ())):
        part.seed = seed
        part.rng_state, part.np_rng = random.Random(seed), np.random.default_rng(seed)


def _metrics(outcome: Any) -> dict[str, Any]:
    """Return the metrics of the first split and subset, as mteb names them."""
    rows = next(iter(outcome.scores.values()))
    return {
        name: float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else value
        for name, value in rows[0].items()
    }


def _revision(task: AbsTask) -> str:
    parts = getattr(task.metadata, "tasks", None) or [task]
    return " ".join(str(part.metadata.dataset["revision"]) for part in parts)


def _name(model: SentenceTransformer) -> str:
    backbone = getattr(model[0], "model", None)
    name = str(getattr(getattr(backbone, "config", None), "_name_or_path", "") or type(model[0]).__name__)
    return "nano" if name == str(nano.folder()) else name
