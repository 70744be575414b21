"""run.json: what a run was made of, stage by stage: recipe, lineage, data, versions, curves and scores.

It is written anew after every stage, to a temporary name and then moved, so that it is never half there.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from antiphon.errors import CheckpointError, ConfigError
from antiphon.model.checkpoint import RUN

LIBRARIES = ("antiphon", "sentence-transformers", "transformers", "peft", "accelerate", "torch", "datasets")


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What became of one stage."""

    name: str
    loss: str
    base: str
    """What it started from: the base's name, or the folder of the stage before, seen from the run's."""
    base_fingerprint: str
    model: str
    """The folder of its result, seen from the run's."""
    fingerprint: str
    error_against_spread: float
    """Of the saved and reloaded model against the one in memory before its adapters were merged."""
    data: list[dict[str, Any]]
    """Each set with its rows and the fingerprint of them."""
    steps: int
    seconds: float
    best_step: int | None
    history: list[dict[str, Any]]
    """The trainer's log: `step` with `loss` and its parts, or with what the evaluation gave."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The whole run."""

    name: str
    recipe: dict[str, Any]
    seed: int
    versions: dict[str, str]
    machine: str
    processes: int
    stages: list[StageRecord] = field(default_factory=list)

    @property
    def checkpoint(self) -> str | None:
        """The folder of the last finished stage, seen from the run's."""
        return self.stages[-1].model if self.stages else None


def new(name: str, recipe: Mapping[str, Any], *, seed: int, processes: int) -> RunRecord:
    """Return the record of a run that has not begun."""
    return RunRecord(
        name=name,
        recipe=dict(recipe),
        seed=seed,
        versions={library: version(library) for library in LIBRARIES} | {"python": platform.python_version()},
        machine=platform.platform(),
        processes=processes,
    )


def write(record: RunRecord, folder: Path) -> None:
    """Write run.json into the run's folder."""
    content = {"checkpoint": record.checkpoint, **asdict(record)}
    temporary = folder / f".{RUN}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, folder / RUN)
    except OSError as error:
        raise CheckpointError(f"{folder / RUN} could not be written ({error}).") from error


def read(folder: Path) -> RunRecord | None:
    """Return the record in a run's folder, None where there is none; CheckpointError where it is broken."""
    file = folder / RUN
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        content.pop("checkpoint")
        stages = [StageRecord(**stage) for stage in content.pop("stages")]
        return RunRecord(**content, stages=stages)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file} is not the record of a run ({error}).") from error


def check_same(record: RunRecord, recipe: Mapping[str, Any], folder: Path) -> None:
    """Raise a ConfigError, naming what differs, unless the run in the folder was begun with this recipe."""
    before, now = _flat(record.recipe), _flat(json.loads(json.dumps(recipe)))
    different = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if different:
        shown = ", ".join(f"{name} (was {before.get(name)!r:.40}, is {now.get(name)!r:.40})" for name in different[:3])
        raise ConfigError(
            f"The run in {folder} was begun with another recipe: {shown}; resume it with the same one, or set out to "
            "another folder."
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables as dotted names."""
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        pairs = ((str(number), item) for number, item in enumerate(value))  # type: ignore[assignment]
    else:
        return {prefix: list(value) if isinstance(value, tuple) else value}
    return {name: leaf for key, item in pairs for name, leaf in _flat(item, f"{prefix}.{key}".lstrip(".")).items()}
