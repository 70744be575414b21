"""An experiment's table and picture out of its records: nothing here needs a model."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from antiphon.cli.report import write_comparison
from antiphon.cli.report.charts import HUNDRED, Chart, Mark, Series, charts
from antiphon.cli.report.svg import drawing
from antiphon.evaluation import compare
from antiphon.evaluation.comparison import Comparison, System
from antiphon.evaluation.curves import Curve, read_curves
from antiphon.evaluation.scores import load_scores, ordered
from antiphon.evaluation.statistics import Interval
from antiphon.files import write_whole
from experiments.experiment import Contrast, Experiment
from experiments.job import INSIDE, JOB, Job

TABLE, CHART = "table.md", "chart.svg"
_TOLD = "probe:reconstruction"
_NATS = ("query to document, nats a token", "document to query, nats a token")
_SHORT = {"PairClassification": "pairs", "Classification": "class.", "Clustering": "clust.", "Reranking": "rerank."}
_TERA = 1e12
_QUARTERS = 4


def write_report(experiment: Experiment, jobs: Sequence[Job], *, work: Path, results: Path) -> str:
    """Write the HTML report into `work`, tables and picture into `results`, and return the tables."""
    outcome, curves = read_results(jobs)
    if outcome is not None:
        write_comparison(outcome, work)
    tables = tables_of(experiment, outcome, curves, jobs)
    write_whole(results / TABLE, f"{tables}\n".encode())
    write_whole(results / CHART, drawing(chart_of(experiment, outcome, curves)).encode())
    return tables


def read_results(jobs: Sequence[Job]) -> tuple[Comparison | None, list[Curve]]:
    """Return the runs that are scored side by side, None where none is, and the curves of all."""
    scored = [job.kept for job in jobs if job.is_done()]
    curves = [curve for job in jobs if job.is_trained() for curve in read_curves(job.kept)]
    return (compare(scored) if scored else None), curves


def tables_of(experiment: Experiment, outcome: Comparison | None, curves: Sequence[Curve], jobs: Sequence[Job]) -> str:
    """Return the scores of each arm, how it got there, how its losses fell, and what the arms are."""
    unscored = [job.name for job in jobs if not job.is_done()]
    notes = [f"Trained and not scored: {', '.join(unscored)}."] if unscored else []
    listed = "\n".join(f"- `{name}`: {arm.about}" for name, arm in experiment.arm.items())
    done = [job for job in jobs if job.is_done()]
    scores = [] if outcome is None else _scores(outcome, done)
    contrasts = [part for contrast in experiment.contrast.values() for part in _contrast(contrast, done)]
    return "\n\n".join([*scores, *notes, *contrasts, *_looks(curves), *_losses(curves), listed])


def _scores(outcome: Comparison, jobs: Sequence[Job]) -> list[str]:
    """Return a row an arm: average over its seeds, difference from the first arm, categories, and what it cost."""
    categories = ordered(set(outcome.categories.values()))
    told = any(name.startswith(_TOLD) for name in outcome.probes)
    first = outcome.systems[0].label
    names = [_SHORT.get(name, name if name == "STS" else name.lower()) for name in categories]
    heads = ["arm", "seeds", "average", "deviation over seeds", f"minus {first}", "95 %", *names]
    heads += [*(["nats Q to D", "nats D to Q"] if told else []), "steps", "TFLOP", "minutes"]
    rows = [
        _row(system, outcome, categories, told, [job for job in jobs if job.arm == system.label])
        for system in outcome.systems
    ]
    note = (
        f"{len(outcome.tasks)} tasks ({', '.join(outcome.tasks)}), scores times 100; intervals are paired over "
        "examples and seeds. Nats: what a vector tells of the other side, a token. TFLOP (by formula) and minutes are "
        "of training."
    )
    return [_table(heads, rows), note, *outcome.notes]


def _contrast(contrast: Contrast, jobs: Sequence[Job]) -> list[str]:
    """Return a line and a table of systems, those of which no run is done left out; nothing without the first."""
    runs = [
        replace(load_scores(job.kept / INSIDE), label=name)
        for name, arms in contrast.systems.items()
        for job in jobs
        if job.arm in arms
    ]
    first, found = next(iter(contrast.systems)), {run.label for run in runs}
    if first not in found or len(found) == 1:
        return []
    outcome = compare(runs)
    categories = ordered(set(outcome.categories.values()))
    names = [_SHORT.get(name, name if name == "STS" else name.lower()) for name in categories]
    heads = ["system", "runs", "average", "deviation over runs", f"minus {first}", "95 %"]
    heads += [*(f"{name}, minus {first}, 95 %" for name in names), "averages of the runs"]
    rows = [_contrast_row(system, outcome, categories) for system in outcome.systems]
    return [f"{contrast.about}:", _table(heads, rows)]


def _contrast_row(system: System, outcome: Comparison, categories: Sequence[str]) -> list[str]:
    row = [system.label, str(len(system.runs)), _hundred(system.average.mean)]
    row += ["" if system.seed_deviation is None else _hundred(system.seed_deviation), *_difference(system.difference)]
    for category in categories:
        tasks = [system.tasks[name] for name in outcome.tasks if outcome.categories[name] == category]
        figures = _hundred(statistics.mean(task.main for task in tasks))
        gain = tasks[0].difference if len(tasks) == 1 else None
        row.append(figures if gain is None else "{}, {} ({})".format(figures, *_difference(gain)))
    averages = zip(*(figures.values for figures in system.tasks.values()), strict=True)
    return [*row, ", ".join(_hundred(statistics.mean(one)) for one in averages)]


def chart_of(experiment: Experiment, outcome: Comparison | None, curves: Sequence[Curve]) -> Chart:
    """Return how the arms got there where they were looked at while they trained, and where they end otherwise."""
    looks = _mean_curves(curves)
    if looks or outcome is None:
        return Chart(
            "curves", f"{experiment.name}: average while training", "lines",
            "step of the last stage", "average x 100, mean over seeds", tuple(looks),
        )  # fmt: skip
    chosen = {chart.name: replace(chart, title=f"{experiment.name}: {chart.title}") for chart in charts(outcome)}
    return chosen.get("differences", chosen["scores"])


def _mean_curves(curves: Sequence[Curve]) -> list[Series]:
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for curve in curves:
        if curve.quantity == "average":
            for step, value in curve.points:
                points[_arm(curve)][step].append(HUNDRED * value)
    return [
        Series(arm, tuple(_mark(step, values) for step, values in sorted(steps.items())), number)
        for number, (arm, steps) in enumerate(points.items())
    ]


def _looks(curves: Sequence[Curve]) -> list[str]:
    """Return a table of the averages that were taken while the last stage trained, means over seeds."""
    found = {series.name: {mark.x: mark for mark in series.marks} for series in _mean_curves(curves)}
    steps = sorted({step for marks in found.values() for step in marks})
    rows = [[arm, *(_look(marks.get(step)) for step in steps)] for arm, marks in found.items()]
    return [_table(["arm", *(f"average at step {step:g}" for step in steps)], rows)] if rows else []


def _look(mark: Mark | None) -> str:
    if mark is None or mark.low == mark.high:
        return "" if mark is None else f"{mark.y:.2f}"
    return f"{mark.y:.2f} ({mark.low:.2f} to {mark.high:.2f})"


def _losses(curves: Sequence[Curve]) -> list[str]:
    """Return a table of how the loss of each stage fell: means over quarters of its steps and over seeds."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for curve in curves:
        if curve.quantity == "loss":
            last = max(step for step, _ in curve.points)
            points[_arm(curve), curve.stage] += [(step / last, value) for step, value in curve.points]
    rows = [
        [arm, stage, *(_mean([y for x, y in found if part < _QUARTERS * x <= part + 1]) for part in range(_QUARTERS))]
        for (arm, stage), found in points.items()
    ]
    heads = ["arm", "loss of stage", "first quarter", "second", "third", "last"]
    return [_table(heads, rows)] if rows else []


def _arm(curve: Curve) -> str:
    return curve.run.rpartition("-")[0]


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}" if values else ""


def _mark(step: int, values: Sequence[float]) -> Mark:
    return Mark(step, statistics.mean(values), min(values), max(values))


def _row(system: System, outcome: Comparison, categories: Sequence[str], told: bool, jobs: Sequence[Job]) -> list[str]:
    gain, deviation = system.difference, system.seed_deviation
    row = [system.label, str(len(system.runs)), _hundred(system.average.mean)]
    row += ["" if deviation is None else _hundred(deviation), *_difference(gain)]
    for category in categories:
        scores = [system.tasks[name].main for name in outcome.tasks if outcome.categories[name] == category]
        row.append(_hundred(statistics.mean(scores)))
    if told:
        row += _nats(system)
    return row + _costs(jobs)


def _difference(gain: Interval | None) -> tuple[str, str]:
    if gain is None:
        return "", ""
    return f"{HUNDRED * gain.mean:+.2f}", f"{HUNDRED * gain.low:+.2f} to {HUNDRED * gain.high:+.2f}"


def _nats(system: System) -> list[str]:
    figures: list[Mapping[str, float]] = [
        score.metrics for run in system.runs for name, score in run.items() if name.startswith(_TOLD)
    ]
    return [f"{statistics.mean(one[name] for one in figures):+.3f}" if figures else "" for name in _NATS]


def _costs(jobs: Sequence[Job]) -> list[str]:
    """Return steps, teraflops and minutes of training, means over seeds."""
    stages: list[list[dict[str, Any]]] = [
        json.loads((job.kept / JOB).read_text(encoding="utf-8"))["costs"]["stages"] for job in jobs
    ]
    if not any(stages):
        return ["", "", ""]
    steps = " + ".join(str(stage["steps"]) for stage in stages[0])
    flops = statistics.mean(sum(stage["flops"] for stage in run) for run in stages)
    seconds = statistics.mean(sum(stage["seconds"] for stage in run) for run in stages)
    return [steps, f"{flops / _TERA:.1f}", f"{seconds / 60:.1f}"]


def _hundred(value: float) -> str:
    return f"{HUNDRED * value:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
