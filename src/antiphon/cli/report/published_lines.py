"""A run beside what papers print, by category of MTEB English, version 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.cli.report.terminal import say, table

if TYPE_CHECKING:
    from antiphon.evaluation.comparison import Comparison

NOTE = (
    "Published rows are MTEB English, version 1, 56 tasks, times 100. A cell of a run says over how many tasks it is, "
    "where those are not all of the category; only whole cells can be compared."
)


def beside(outcome: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the table, the runs' first."""
    from antiphon.evaluation.published_scores import AVERAGE, TASKS, category_means

    wanted = {**TASKS, AVERAGE: sum(TASKS.values())}
    rows = []
    for system in outcome.systems:
        means = category_means({task: figures.main for task, figures in system.tasks.items()}, outcome.categories)
        cells = []
        for category, tasks in wanted.items():
            mean, count = means.get(category, (0.0, 0))
            whole = "" if count == tasks else f" ({count} of {tasks})"
            cells.append(f"{mean:.2f}{whole}" if count else "")
        rows.append((system.label, "this run", *cells))
    for row in outcome.published:
        rows.append((f"{row.model}, {row.system}", row.paper, *(_printed(row.figures.get(name)) for name in wanted)))
    return ("system", "source", *wanted), rows


def published(outcome: Comparison) -> None:
    """Print the table, where published rows were asked for."""
    if outcome.published:
        heads, rows = beside(outcome)
        say(NOTE)
        table(heads, rows)


def _printed(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
