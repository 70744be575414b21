"""One run of an experiment: an arm with a seed is trained, calibrated, scored, and its small records are kept."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.errors import ConfigError
from antiphon.evaluation.local_tasks import find
from antiphon.evaluation.probes import PREFIX
from antiphon.evaluation.scores import SCORES, Scores
from antiphon.files import write_whole
from antiphon.model.library_messages import quiet
from antiphon.training.plan import plan
from antiphon.training.recipe_tables import Data, Model, Stage, Strict, with_defaults
from experiments.experiment import Evaluation, Experiment

RUN, JOB, INSIDE = "run.json", "job.json", "evaluation"
_DIGITS = 6
"""Of each example's figure, which keeps the files small."""
_TABLES: dict[str, type[Strict]] = {"model": Model, "data": Data, "evaluation": Evaluation}
"""What was asked for, beside the stages, that has settings of its own."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run and where it goes: `work` holds weights, `results` what is kept."""

    experiment: Experiment
    arm: str
    seed: int
    work: Path
    results: Path

    @property
    def name(self) -> str:
        """What its folders are called."""
        return f"{self.arm}-{self.seed}"

    @property
    def kept(self) -> Path:
        """The folder of its records."""
        return self.results / self.name

    def is_done(self) -> bool:
        """Return whether its records are there; ConfigError where they are those of another recipe or evaluation."""
        if not (self.kept / JOB).exists():
            return False
        before = _with_defaults(json.loads((self.kept / JOB).read_text(encoding="utf-8"))["asked"])
        if before != (now := _with_defaults(self.asked())):
            different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            raise ConfigError(
                f"{self.kept} was run with another {', '.join(different)}; remove that folder to run it anew, or give "
                "the experiment another name."
            )
        return True

    def is_trained(self) -> bool:
        """Return whether the record of its training is there."""
        return (self.kept / RUN).exists()

    def asked(self) -> dict[str, Any]:
        """Return what was asked for, as JSON has it."""
        arm = self.experiment.arm[self.arm]
        asked: dict[str, Any] = {
            "model": self.experiment.model_of(self.arm).model_dump(exclude_none=True),
            "calibrate": arm.calibrate,
            "evaluation": self.experiment.evaluation.model_dump(),
        }
        if arm.stages:
            recipe = self.experiment.recipe_of(self.arm, self.seed, out=Path(), texts=None)
            asked["stages"] = [stage.model_dump(exclude_none=True) for stage in recipe.stage]
            asked["data"] = None if recipe.data is None else recipe.data.model_dump(exclude_none=True)
        plain: dict[str, Any] = json.loads(json.dumps(asked))
        return plain


def _with_defaults(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked for with the settings that came later, as they are by themselves."""
    made = {**asked, **{name: with_defaults(table, asked[name]) for name, table in _TABLES.items() if asked.get(name)}}
    if "stages" in asked:
        made["stages"] = [with_defaults(Stage, stage) for stage in asked["stages"]]
    return made


def run(job: Job) -> str:
    """Do one run, or what is left of it, and return a line about it."""
    torch.set_num_threads(1)
    quiet()
    costs: dict[str, Any] = {"stages": []}
    if job.experiment.arm[job.arm].stages:
        costs["stages"] = _train(job)
    began = time.perf_counter()
    scores = _score(job, _model(job))
    costs["evaluation_seconds"] = round(time.perf_counter() - began, 1)
    if (job.kept / INSIDE / SCORES).exists():
        shutil.rmtree(job.kept / INSIDE)  # of a run that was stopped before its job.json
    scores.save(job.kept / INSIDE)
    content = {"arm": job.arm, "seed": job.seed, "asked": job.asked(), "costs": costs}
    write_whole(job.kept / JOB, (json.dumps(content, indent=1) + "\n").encode())
    seconds = sum(stage["seconds"] for stage in costs["stages"])
    return f"{job.name}: {100 * scores.average:.2f}, trained {seconds:,.0f} s, scored {costs['evaluation_seconds']:,} s"


def evaluation_texts(experiment: Experiment) -> Iterator[str]:
    """Give the texts of the examples of the local tasks that the arms are scored on."""
    for task in experiment.evaluation.tasks:
        if task.startswith(PREFIX) or not Path(task).exists():
            continue
        for layout in find(task):
            yield from _texts(layout.read(limit=experiment.evaluation.limit, seed=42).parts)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("id", "label", "labels", "relevant"):
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _train(job: Job) -> list[dict[str, Any]]:
    """Train the arm's stages and return what each of them cost; the run's record is kept."""
    texts = job.work / "evaluation-texts.jsonl" if job.experiment.evaluation.drop_overlap else None
    recipe = job.experiment.recipe_of(job.arm, job.seed, out=job.work / job.name, texts=texts)
    folder = antiphon.train(recipe, resume=(job.work / job.name / RUN).exists(), on_step=partial(_tell, job.name))
    job.kept.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / RUN, job.kept / RUN)
    record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    seconds = {stage["name"]: stage["seconds"] for stage in record["stages"]}
    return [
        {"name": stage.name, "steps": stage.steps, "flops": stage.flops, "seconds": round(seconds[stage.name], 1)}
        for stage in plan(recipe).stages
    ]


def _tell(name: str, line: str) -> None:
    print(f"{name}: {line.strip()}", file=sys.stderr, flush=True)


def _model(job: Job) -> SentenceTransformer:
    arm = job.experiment.arm[job.arm]
    if arm.stages:
        model = antiphon.load(job.work / job.name, device="cpu", dtype="float32")
    else:
        shape = job.experiment.model_of(job.arm)
        words = shape.model_dump(exclude_none=True, exclude={"base", "dtype", "prompts", "attention"})
        model = antiphon.build(shape.base, device="cpu", dtype="float32", **words)
    return model if arm.calibrate is None else antiphon.calibrate(model, method=arm.calibrate)


def _score(job: Job, model: SentenceTransformer) -> Scores:
    asked = job.experiment.evaluation
    scores = antiphon.evaluate(
        model,
        list(asked.tasks),
        instructions=asked.instructions,
        limit=asked.limit,
        label=job.arm,
        cache=job.work / "cache",
    )
    tasks = {
        name: replace(
            score,
            sample=score.sample
            and replace(
                score.sample,
                first=np.round(score.sample.first, _DIGITS),
                second=None if score.sample.second is None else np.round(score.sample.second, _DIGITS),
            ),
        )
        for name, score in scores.tasks.items()
    }
    return replace(scores, tasks=tasks)
