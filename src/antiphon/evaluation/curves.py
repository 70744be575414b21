"""What a training run logged, read from its run.json: loss by step, and the scores of its evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.errors import DataError

RUN = "run.json"
_SCORE = "eval_"
_NOT_A_SCORE = ("_runtime", "_per_second", "_loss")


@dataclass(frozen=True)
class Curve:
    """One quantity of one stage of one run, by step."""

    run: str
    stage: str
    quantity: str
    """"loss", or the name of an evaluated score."""
    points: tuple[tuple[int, float], ...]

    @property
    def is_score(self) -> bool:
        """Whether it comes from an evaluation."""
        return self.quantity != "loss"


def read_curves(folder: Path) -> list[Curve]:
    """Return the curves of a training run's folder, none where it is no such folder; DataError for a broken file."""
    path = folder / RUN
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [
            curve
            for stage in record["stages"]
            for curve in _of_stage(str(record["name"]), str(stage["name"]), stage["history"])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no record of a training run ({error!r}).") from error


def _of_stage(run: str, stage: str, history: list[dict[str, Any]]) -> list[Curve]:
    points: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for key, value in entry.items():
            quantity = key.removeprefix(_SCORE)
            known = key == "loss" or (key.startswith(_SCORE) and not key.endswith(_NOT_A_SCORE))
            if known and isinstance(value, int | float):
                points.setdefault(quantity, []).append((int(entry["step"]), float(value)))
    return [Curve(run, stage, quantity, tuple(found)) for quantity, found in points.items() if found]
