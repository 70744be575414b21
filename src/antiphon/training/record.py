"""run.json: what a run was made of, stage by stage: recipe, lineage, data, versions, curves and scores.

It is written anew when a stage begins and when it has ended, whole or not at all.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from antiphon.errors import CheckpointError, ConfigError
from antiphon.files import reason, write_whole
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
    prompts: dict[str, str] = field(default_factory=dict)
    """What the saved model says by itself, by the name of the prompt."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The whole run."""

    name: str
    recipe: dict[str, Any]
    seed: int
    versions: dict[str, str]
    """Of the first process; those of later ones stand in `starts`."""
    machine: str
    processes: int
    sources: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of each file of data, by its path, since the first stage that reads it began."""
    begun: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By stage, the sets and fingerprints of the rows that it began with."""
    starts: list[dict[str, Any]] = field(default_factory=list)
    """Each process that trained something: when, versions, machine, the stage it began or went on with, and the data
    that had changed since the run began with them."""
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
        versions=_versions(),
        machine=platform.platform(),
        processes=processes,
    )


def started(
    record: RunRecord, stage: str, *, sources: Mapping[str, str], changed: Sequence[str], processes: int
) -> RunRecord:
    """Return the record with one more process that trains, and the files that it reads."""
    start = {
        "at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "stage": stage,
        "versions": _versions(),
        "machine": platform.platform(),
        "processes": processes,
        "changed_data": list(changed),
    }
    return replace(record, sources={**record.sources, **sources}, starts=[*record.starts, start])


def _versions() -> dict[str, str]:
    # torch by its own word: CPU and CUDA builds of a release differ in digits, and metadata may not say which
    known = {library: version(library) for library in LIBRARIES}
    return known | {"torch": torch.__version__, "python": platform.python_version()}


def write(record: RunRecord, folder: Path) -> None:
    """Write run.json into the run's folder."""
    content = {"checkpoint": record.checkpoint, **asdict(record)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / RUN, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"{folder / RUN} could not be written ({reason(error)}).") from error


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
