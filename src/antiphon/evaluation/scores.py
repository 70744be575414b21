"""What an evaluation found: a score for each task, averages as the papers print them, and the folder that keeps it.

A folder has `scores.json` (everything but the examples) and `examples/TASK.json` (what each main score was made of).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.data.tabular import ResultTable, Tabular
from antiphon.errors import DataError
from antiphon.evaluation.statistics import Interval, Sample
from antiphon.files import HeldFolder, check_place, held

SCORES = "scores.json"
CATEGORIES = ("Retrieval", "Reranking", "Clustering", "PairClassification", "Classification", "STS", "Summarization")
"""In the order of the papers' tables; any other category follows."""
PROBE = "Probe"
"""Probes have figures and no part in any average."""


@dataclass(frozen=True)
class TaskCost:
    """What the texts of a task cost a model."""

    texts: int
    """Distinct texts, by side."""
    tokens_per_text: float
    """Tokens of the sequence that the model reads: frame, instruction and all copies; over a sample of the texts."""
    flops_per_text: float
    """Floating-point operations of the forward pass, by formula."""
    seconds_per_text: float | None
    """Measured over the texts that went through the model; None where all vectors were on disk already."""


@dataclass(frozen=True)
class TaskScore:
    """The score of one task."""

    name: str
    category: str
    metric: str
    main: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    revision: str = ""
    """Of the data."""
    instruction: str = ""
    cost: TaskCost | None = None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """A probe's tables."""
    sample: Sample | None = None
    """The examples, where the score is a statistic of them."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """What mteb writes of the task, all splits and subsets of it and of its parts, by the name of the task."""

    def interval(self) -> Interval | None:
        """Return the score with its 95 % bootstrap interval over examples, None where there are none."""
        return None if self.sample is None or len(self.sample) < 2 else self.sample.interval()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a JSON file, the sample and mteb's own results apart."""
        fields = asdict(replace(self, sample=None, results={}))
        del fields["sample"], fields["results"]
        return {**fields, "notes": list(self.notes)}


@dataclass(frozen=True, repr=False)
class Scores(Tabular, Mapping[str, TaskScore]):
    """The scores of one model; a mapping from task to its score."""

    model: str
    label: str
    """What a table calls it; runs of one label are seeds of one system."""
    revision: str
    """A hash of weights, tokenizer, configuration, template and instructions."""
    instructions: str
    """A hash of the instructions that were given."""
    tasks: Mapping[str, TaskScore]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> TaskScore:
        if name not in self.tasks:
            raise KeyError(f"There is no score of {name!r}; there are {', '.join(self.tasks)}.")
        return self.tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def average(self) -> float:
        """The mean over tasks of the main scores, each task once: the papers' Average 56 on those 56; NaN of none."""
        return _mean([score.main for score in self.tasks.values() if score.category != PROBE])

    @property
    def categories(self) -> dict[str, float]:
        """The mean main score of every category, in the papers' order."""
        return {
            category: _mean([score.main for score in self.tasks.values() if score.category == category])
            for category in ordered({score.category for score in self.tasks.values()})
            if category != PROBE
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of words for each task, by category: name, category, metric, score and interval times 100."""
        return [
            (score.name, category, score.metric, _hundred(score.main), _words(score.interval()))
            for category in self.categories
            for score in self.values()
            if score.category == category
        ]

    def tables(self) -> list[ResultTable]:
        """Return the table of tasks, averages and probes."""
        means = [(f"mean of {name}", "", "", _hundred(value), "") for name, value in self.categories.items()]
        if len(means) > 1:
            means.append(("mean of all tasks", "", "", _hundred(self.average), ""))
        probes = [
            (score.name, PROBE, name, f"{value:.4g}", "")
            for score in self.values()
            if score.category == PROBE
            for name, value in score.metrics.items()
        ]
        caption = f"{self.label}, revision {self.revision[:12]}: scores x 100, intervals 95 %"
        return [
            ResultTable(caption, ("task", "category", "metric", "score", "interval"), [*self.rows(), *means, *probes])
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the examples, for a JSON file."""
        return {
            "model": self.model,
            "label": self.label,
            "revision": self.revision,
            "instructions": self.instructions,
            "average": self.average,
            "categories": self.categories,
            "settings": dict(self.settings),
            "tasks": {name: score.to_dict() for name, score in self.tasks.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write the folder and return it; DataError where other scores, or anything else, stand there."""
        with held(folder, "evaluate") as place:
            self.write(place)
        return Path(folder)

    def write(self, place: HeldFolder) -> None:
        """Write into a folder that this process holds; DataError where other scores, or anything else, stand there."""
        check_place(place.path, SCORES)
        self._check_may_replace(place.path)
        with place.filled(last=(SCORES,), mark=SCORES) as written:
            (written / "examples").mkdir()
            (written / SCORES).write_text(_json(self.to_dict()), encoding="utf-8")
            for name, score in self.tasks.items():
                if score.sample is not None:
                    path = written / "examples" / f"{file_name(name)}.json"
                    path.write_text(json.dumps(sample_to_dict(score.sample)), encoding="utf-8")

    def _check_may_replace(self, target: Path) -> None:
        if not (target / SCORES).exists():
            return
        before = load_scores(target)
        if before.revision != self.revision or not set(before.tasks) <= set(self.tasks):
            raise DataError(
                f"{target} holds the scores of {before.label!r} on {len(before)} tasks, which this run does not "
                "replace; name another folder or remove it."
            )


def load_scores(folder: str | Path) -> Scores:
    """Read a folder of scores; DataError where it is none."""
    path = Path(folder) / SCORES
    if not path.exists():
        raise DataError(f"{folder} holds no {SCORES}; name a folder that `antiphon evaluate --out` wrote.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        tasks = {name: score_from_dict(fields, _sample(path.parent, name)) for name, fields in raw["tasks"].items()}
        named = {key: raw[key] for key in ("model", "label", "revision", "instructions", "settings")}
        return Scores(**named, tasks=tasks)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no file of scores ({error!r}).") from error


def score_from_dict(
    fields: Mapping[str, Any], sample: Sample | None, results: Mapping[str, Any] | None = None
) -> TaskScore:
    """Return the score that `to_dict` gave."""
    cost = None if fields["cost"] is None else TaskCost(**fields["cost"])
    apart = {"cost": cost, "sample": sample, "results": results or {}}
    return TaskScore(**{**fields, "notes": tuple(fields["notes"]), **apart})


def sample_to_dict(sample: Sample) -> dict[str, Any]:
    """Return a sample for a JSON file."""
    return {
        "statistic": sample.statistic,
        "ids": list(sample.ids),
        "first": sample.first.tolist(),
        "second": None if sample.second is None else sample.second.tolist(),
    }


def sample_from_dict(raw: Mapping[str, Any]) -> Sample:
    """Return the sample that `sample_to_dict` gave."""
    second = None if raw["second"] is None else np.asarray(raw["second"], dtype=np.float64)
    return Sample(raw["statistic"], tuple(raw["ids"]), np.asarray(raw["first"], dtype=np.float64), second)


def ordered(categories: set[str]) -> list[str]:
    """Return categories in the papers' order, others behind by name."""
    known = [category for category in CATEGORIES if category in categories]
    return known + sorted(categories - set(known))


def file_name(task: str) -> str:
    """Return a task's name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in task)


def _sample(folder: Path, name: str) -> Sample | None:
    path = folder / "examples" / f"{file_name(name)}.json"
    return sample_from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=float) + "\n"


def _hundred(value: float) -> str:
    return f"{100 * value:.2f}"


def _words(interval: Interval | None) -> str:
    return "" if interval is None else interval.in_hundreds()


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else float("nan")
