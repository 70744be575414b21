"""Evaluate and compare: mteb's tasks, metrics and names; ours are local data, instructions, identity and probes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.evaluation.comparison import Comparison, compare
    from antiphon.evaluation.during_training import evaluator
    from antiphon.evaluation.evaluation_run import evaluate
    from antiphon.evaluation.scores import Scores, TaskScore, load_scores
    from antiphon.evaluation.task_sets import SETS

# mteb takes seconds to import; who reads or compares scores does not need it
_HOMES = {
    "Comparison": "comparison",
    "SETS": "task_sets",
    "Scores": "scores",
    "TaskScore": "scores",
    "compare": "comparison",
    "evaluate": "evaluation_run",
    "evaluator": "during_training",
    "load_scores": "scores",
}

__all__ = ["SETS", "Comparison", "Scores", "TaskScore", "compare", "evaluate", "evaluator", "load_scores"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'antiphon.evaluation' has no attribute {name!r}")
    from antiphon.evaluation.randomness import kept

    with kept():  # importing mteb seeds every generator
        return getattr(import_module(f"antiphon.evaluation.{_HOMES[name]}"), name)
