"""Tasks over Ray's workers, a model in each: the largest task first, to whom has nothing to do; the same scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sentence_transformers import SentenceTransformer

from antiphon.corpus.ray_cluster import RETRIES, RaySettings, SentModel, answered, connected, raised_as_ours
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
    with connected(settings) as workers:
        from ray.util import ActorPool

        # an actor that died is started again and its task given to it anew, a few times
        made = workers.ray.remote(
            max_restarts=RETRIES, max_task_retries=RETRIES,
            num_cpus=workers.threads or 0, num_gpus=int(workers.threads is None),
        )(_Worker)  # fmt: skip
        with raised_as_ours():
            sent = workers.sent(model)
            actors = [made.remote(sent, score) for _ in range(min(workers.number, len(tasks)))]
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

    def __init__(self, model: SentModel, score: Score) -> None:
        self._sent, self._score = model, score
        self._model: SentenceTransformer | None = None

    def scored(self, number: int, task: Selection) -> tuple[int, TaskScore | AntiphonError]:
        """Return a task's number and score, or what a user can mend."""
        return number, answered(lambda: self._score(self._opened(), task))

    def _opened(self) -> SentenceTransformer:
        self._model = self._model or self._sent.opened()
        return self._model
