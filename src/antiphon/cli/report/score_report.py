"""What evaluate and compare print and write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.report.charts import GIGA, HUNDRED, charts
from antiphon.cli.report.page import page
from antiphon.cli.report.published_lines import published
from antiphon.cli.report.svg import drawing
from antiphon.cli.report.terminal import note, progress, say, table
from antiphon.files import check_place, held

if TYPE_CHECKING:
    from antiphon.evaluation.comparison import Comparison, System
    from antiphon.evaluation.scores import Scores, TaskScore
    from antiphon.evaluation.statistics import Interval
    from antiphon.exporting.leaderboard import Submission


class _Evaluating:
    """Tells which task is run and how far the evaluation is."""

    def __init__(self, tell: Callable[[int, int | None], None]) -> None:
        self._tell = tell

    def estimate(self, characters: int, seconds: float) -> None:
        minutes = f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{seconds:,.0f} s"
        note(f"{characters:,} characters of text; about {minutes} at the speed of a first sample, less what is known")

    def task(self, name: str, number: int, count: int) -> None:
        note(f"{name} ({number} of {count})")

    def progress(self, done: int, total: int | None) -> None:
        self._tell(done, total)


@contextmanager
def evaluating() -> Iterator[_Evaluating]:
    """Give a listener that shows on standard error how an evaluation goes."""
    with progress("characters") as tell:
        yield _Evaluating(tell)


TABLES, PAGE = "comparison.json", "report.html"
_PROBE = "Probe"


def scores(found: Scores, out: Path | None = None) -> None:
    """Print a table of tasks by category, the averages, the probes, what is to be said about the data, and where."""
    say(f"{found.label}, revision {found.revision[:12]}; scores are times 100, intervals 95 % (bootstrap).\n")
    rows = found.rows()
    if rows:
        table(("task", "category", "metric", "score", "95 % interval"), rows)
        averages = [(name, _hundred(value)) for name, value in found.categories.items()]
        table(("average", "score"), [*averages, (f"all {_tasks(len(rows))}", _hundred(found.average))])
    for score in found.values():
        if score.category == _PROBE:
            _probe(score)
    for score in found.values():
        for words in score.notes:
            say(f"{score.name}: {words}")
    if out is not None:
        note(f"written to {out}")


def _probe(score: TaskScore) -> None:
    table((score.name, ""), [(name, f"{value:.4g}") for name, value in score.metrics.items()])


def submission(written: Submission) -> None:
    """Print what was written for the leaderboard, and what is known of each task's part in the training."""
    say(f"\nmteb's mock_run passed; {_tasks(len(written.tasks))} in {written.folder}, as {written.meta.name}.")
    for task, zero_shot in written.zero_shot.items():
        if zero_shot is False:
            say(f"{task}: trained on, or on a task like it")
    if None in written.zero_shot.values():
        say("What the model was trained on is not known by mteb's names: fill in training_datasets.")
    if written.left_out:
        say(f"left out, for they are not mteb's: {', '.join(written.left_out)}")


def comparison(outcome: Comparison) -> None:
    """Print the systems and their differences from the first, then task by task."""
    first, *others = outcome.systems
    say(f"{_tasks(len(outcome.tasks))}; scores are times 100, differences are from {first.label}, intervals 95 %.\n")
    table(
        ("system", "average", "difference", "interval", "better", "worse", "tokens/text", "GFLOP/text", "ms/text"),
        [_system(system) for system in outcome.systems],
    )
    for system in others:
        rows = []
        for task in outcome.tasks:
            a, b = first.tasks[task], system.tasks[task]
            gain = b.difference
            words = ("", "") if gain is None else (_range(gain, "+"), _verdict(gain))
            rows.append((task, _hundred(a.main), _hundred(b.main), f"{HUNDRED * (b.main - a.main):+.2f}", *words))
        table(("task", first.label, system.label, "difference", "95 % interval", ""), rows)
    published(outcome)
    for left_out in outcome.notes:
        say(left_out)


def _system(system: System) -> tuple[str, ...]:
    gain = system.difference
    counts = (
        ("", "", "", "")
        if gain is None
        else (
            f"{HUNDRED * gain.mean:+.2f}",
            _range(gain, "+"),
            str(system.wins),
            str(system.losses),
        )
    )
    costs = (
        _figure(system.cost("tokens_per_text"), 1.0, ".1f"),
        _figure(system.cost("flops_per_text"), GIGA, ".3g"),
        _figure(system.cost("seconds_per_text"), 1e-3, ".1f"),
    )
    return (system.label, _hundred(system.average.mean), *counts, *costs)


def write_comparison(outcome: Comparison, out: str | Path) -> Path:
    """Write report.html, comparison.json and each chart as an SVG file; return the folder.

    Raises DataError where something other than a comparison stands there.
    """
    with held(out, "compare") as place:
        check_place(place.path, TABLES)
        with place.filled(last=(PAGE, TABLES), mark=TABLES) as folder:
            (folder / PAGE).write_text(page(outcome), encoding="utf-8")
            (folder / TABLES).write_text(json.dumps(_as_json(outcome), indent=2) + "\n", encoding="utf-8")
            for chart in charts(outcome):
                (folder / f"{chart.name}.svg").write_text(drawing(chart), encoding="utf-8")
    return Path(out)


def _as_json(outcome: Comparison) -> dict[str, Any]:
    return {
        "baseline": outcome.systems[0].label,
        "notes": list(outcome.notes),
        "published": [
            {"paper": row.paper, "model": row.model, "system": row.system, "figures": dict(row.figures)}
            for row in outcome.published
        ],
        "systems": [
            {
                "label": system.label,
                "seeds": len(system.runs),
                "revisions": [run.revision for run in system.runs],
                "average": _interval(system.average),
                "difference": _interval(system.difference),
                "seed_deviation": system.seed_deviation,
                "wins": system.wins,
                "losses": system.losses,
                "cost": {name: system.cost(name) for name in ("tokens_per_text", "flops_per_text", "seconds_per_text")},
                "tasks": {
                    task: {
                        "main": figures.main,
                        "interval": _interval(figures.interval),
                        "difference": _interval(figures.difference),
                        "by_seed": list(figures.values),
                    }
                    for task, figures in system.tasks.items()
                },
            }
            for system in outcome.systems
        ],
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _tasks(count: int) -> str:
    return f"{count} task" + "s" * (count != 1)


def _hundred(value: float) -> str:
    return f"{HUNDRED * value:.2f}"


def _range(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None else interval.in_hundreds(sign)


def _verdict(gain: Interval) -> str:
    return ("better" if gain.low > 0 else "worse") if gain.excludes_zero else ""


def _figure(value: float | None, unit: float, form: str) -> str:
    return "" if value is None else format(value / unit, form)
