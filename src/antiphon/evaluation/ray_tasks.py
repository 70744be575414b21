"""Tasks over Ray's workers, a model in each: the largest task first, to whom has nothing to do; the same scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from antiphon.corpus.ray_cluster import (
    RETRIES,
    RaySettings,
    connected,
    out_of_memory,
    packed,
    raised_as_ours,
    resources,
    unpacked,
)
from antiphon.errors import AntiphonError
from antiphon.evaluation.progress import Meter
from antiphon.evaluation.scores import TaskScore
from antiphon.evaluation.selection import Selection

Score = Callable[[SentenceTransformer, Selection], TaskScore]
"""Scores a task; it is sent to the workers, which call it with their own model."""


def scored_by_ray(
    model: SentenceTransformer,
    tasks: Sequence[Selection],
    sizes: Sequence[int | None],
    score: Score,
    settings: RaySettings,
    meter: Meter,
) -> Mapping[str, TaskScore]:
    """Return the scores of tasks by name, each from one of Ray's workers; `sizes` are the tasks' characters.

    Raises ConfigError where Ray is not installed or reached, or has not the resources; DataError where workers died
    too often; and what a worker raised.
    """
    numbers = sorted(range(len(tasks)), key=lambda number: -(sizes[number] or 0))
    found: dict[str, TaskScore] = {}
    with connected(settings) as ray:
        from ray.util import ActorPool

        gpus, most = resources(ray, settings)
        threads = None if gpus else settings.cores
        # an actor that died is started again and its task given to it anew, a few times
        made = ray.remote(
            max_restarts=RETRIES, max_task_retries=RETRIES, num_cpus=threads or 0, num_gpus=int(gpus)
        )(_Worker)  # fmt: skip
        with raised_as_ours():
            reference = ray.put(packed(model))
            actors = [made.remote([reference], score, threads) for _ in range(min(most, len(tasks)))]
            outcomes = ActorPool(actors).map_unordered(
                lambda actor, number: actor.scored.remote(number, tasks[number]), numbers
            )
            for number, outcome in outcomes:
                if isinstance(outcome, AntiphonError):
                    raise outcome
                meter.begin(tasks[number].name, number)
                found[tasks[number].name] = outcome
                meter.end(number)
    return found


class _Worker:
    """Lives in an actor of Ray's with a model of its own."""

    def __init__(self, model: Sequence[Any], score: Score, threads: int | None) -> None:
        self._packed, self._score, self._threads = model[0], score, threads
        self._model: SentenceTransformer | None = None

    def scored(self, number: int, task: Selection) -> tuple[int, TaskScore | AntiphonError]:
        """Return a task's number and score; what a user can mend comes back as it is, without Ray's traceback."""
        import ray

        try:
            self._model = self._model or unpacked(ray.get(self._packed), self._threads)
            return number, self._score(self._model, task)
        except AntiphonError as error:
            return number, error
        except (MemoryError, torch.OutOfMemoryError) as error:
            return number, out_of_memory(error)
