"""The same tasks while a model trains, in the form that sentence-transformers' trainer wants."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from antiphon.evaluation import randomness
from antiphon.evaluation.embedder import Encode, ModelEncode
from antiphon.evaluation.evaluation_run import SEED, EvaluationSettings, Tasks, run
from antiphon.evaluation.instructions import Instructions
from antiphon.evaluation.scores import Scores
from antiphon.evaluation.selection import Data, SelectedProbe, Selection, select
from antiphon.model.evaluation_mode import evaluation_mode, own_forward

AVERAGE = "average"
_NO_IDENTITY = "in training"


class TaskEvaluator(SentenceEvaluator):
    """Scores a model on tasks as it is at the moment; nothing is kept on disk."""

    def __init__(self, tasks: Tasks, settings: EvaluationSettings, *, name: str = "") -> None:
        super().__init__()
        with randomness.kept():
            selected = select(tasks, limit=settings.limit, seed=settings.seed)
            self.selected = [_read(task) for task in selected]
        self.settings = settings
        self.name = name
        self.primary_metric = f"{name}_{AVERAGE}" if name else AVERAGE
        self._prepared: tuple[SentenceTransformer, Encode] | None = None
        self.last: Scores | None = None
        """The scores of the last call, with their examples."""

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the main score of every task and their average, with the evaluator's name before them.

        Vectors are in the weights' dtype, as `evaluate` has them, whatever training computes in.
        """
        if self._prepared is None or self._prepared[0] is not model:
            self._prepared = (model, ModelEncode(model, budget=self.settings.budget))
        with evaluation_mode(model), own_forward(model), randomness.kept():
            encode = self._prepared[1]
            self.last = run(model, self.selected, self.settings, identity=_NO_IDENTITY, encode=encode)
        figures = {AVERAGE: self.last.average} | {name: score.main for name, score in self.last.items()}
        metrics: dict[str, float] = self.prefix_name_to_metrics(figures, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def get_config_dict(self) -> dict[str, Any]:
        """Return what a model card is to say."""
        return {"tasks": [task.name for task in self.selected], "limit": self.settings.limit}


def _read(task: Selection) -> Selection:
    """Return the task with its data read already."""
    return task if isinstance(task, SelectedProbe) else replace(task, load=partial(_loaded, task.load()))


def _loaded(data: Data) -> Data:
    return data


def evaluator(
    tasks: Tasks,
    *,
    name: str = "",
    instructions: Instructions = None,
    limit: int | None = None,
    seed: int = SEED,
    budget: int | None = None,
) -> TaskEvaluator:
    """Return an evaluator for sentence-transformers' trainer over the tasks that `evaluate` knows.

    It gives `{name}_{task}` for every task and `{name}_average`, its primary metric. Data are read at once, so that a
    bad file is told before training begins; the random generators of the training are left as they were.

    Raises what `evaluate` raises.
    """
    settings = EvaluationSettings(instructions=instructions, limit=limit, seed=seed, budget=budget)
    return TaskEvaluator(tasks, settings, name=name)
