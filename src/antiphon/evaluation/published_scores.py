"""What the papers print, beside what a run got: one table by category of MTEB English, version 1."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from antiphon.errors import ConfigError
from antiphon.evaluation.scores import CATEGORIES

AVERAGE = "average"
TASKS: Mapping[str, int] = dict(zip(CATEGORIES, (15, 4, 11, 3, 12, 10, 1), strict=True))
"""Tasks of each category."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table: a model, what was done with it, and its scores, times 100."""

    paper: str
    model: str
    system: str
    figures: Mapping[str, float]
    """By category of mteb, and "average"; what is not printed is not there."""


def published(names: Sequence[str]) -> tuple[PublishedRow, ...]:
    """Return the rows of the tables of these names; ConfigError for a name that is none."""
    tables = tomllib.loads(files("antiphon.evaluation").joinpath("published.toml").read_text(encoding="utf-8"))
    for name in names:
        if name not in tables:
            raise ConfigError(f"There are no published rows {name!r}; take some of {', '.join(tables)}.")
    return tuple(PublishedRow(name, **row) for name in names for row in tables[name])


def category_means(mains: Mapping[str, float], categories: Mapping[str, str]) -> dict[str, tuple[float, int]]:
    """Return the mean, times 100, and the number of tasks by category, and of all.

    `mains` are main scores by task, `categories` the category of each.
    """
    groups: dict[str, list[float]] = {}
    for task, main in mains.items():
        for group in (categories[task], AVERAGE):
            groups.setdefault(group, []).append(100 * main)
    return {name: (sum(values) / len(values), len(values)) for name, values in groups.items()}
