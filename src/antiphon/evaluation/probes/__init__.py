"""Probes: the experiments that the papers argue from, on any model, as tasks named `probe:...`.

`probe:geometry` works on the docstrings of the standard library; `probe:geometry=file` on a file: JSON lines with
query, positive and negative, or for `probe:halves` an STS .tsv. A probe has figures and no part in an average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from antiphon.errors import ConfigError
from antiphon.evaluation.probes.context import Context, ProbeResult
from antiphon.evaluation.probes.early_late import early_late, span
from antiphon.evaluation.probes.halves import halves
from antiphon.evaluation.probes.material import DOCSTRINGS, Material
from antiphon.evaluation.probes.sweeps import length, prompts
from antiphon.evaluation.probes.vectors import geometry, reconstruction

PREFIX = "probe:"
PROBES: Mapping[str, Callable[[Context], ProbeResult]] = {
    "early-late": early_late,
    "span": span,
    "halves": halves,
    "length": length,
    "prompts": prompts,
    "geometry": geometry,
    "reconstruction": reconstruction,
}

__all__ = ["PREFIX", "PROBES", "Context", "Material", "ProbeResult", "named"]


def named(task: str, *, limit: int | None, seed: int) -> tuple[Callable[[Context], ProbeResult], Material]:
    """Return the probe of a task's name and its data; ConfigError for an unknown probe or a missing file."""
    name, _, source = task.removeprefix(PREFIX).partition("=")
    if name not in PROBES:
        raise ConfigError(f"There is no probe {name!r}; take one of {', '.join(PROBES)}.")
    if source and not Path(source).is_file():
        raise ConfigError(f"There is no file {source} for {PREFIX}{name}; name one, or none for docstrings.")
    return PROBES[name], Material(source or DOCSTRINGS, limit, seed)
