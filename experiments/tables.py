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
from antiphon.evaluation.scores import ordered
from antiphon.evaluation.statistics import Interval
from antiphon.files import write_whole
from experiments.experiment import Experiment
from experiments.job import JOB, Job

TABLE, CHART = "table.md", "chart.svg"
_TOLD = "probe:reconstruction"
_NATS = ("query to document, nats a token", "document to query, nats a token")
_SHORT = {"PairClassification": "pairs", "Classification": "class.", "Clustering": "clust.", "Reranking": "rerank."}
_TERA = 1e12


def write_report(experiment: Experiment, jobs: Sequence[Job], *, work: Path, results: Path) -> str:
    """Write the HTML report into `work`, table and picture into `results`, and return the table."""
    outcome = compare([job.kept for job in jobs])
    write_comparison(outcome, work)
    table = table_of(experiment, outcome, jobs)
    write_whole(results / TABLE, f"{table}\n".encode())
    write_whole(results / CHART, drawing(chart_of(experiment, outcome)).encode())
    return table


def table_of(experiment: Experiment, outcome: Comparison, jobs: Sequence[Job]) -> str:
    """Return a row an arm: average over its seeds, difference from the first arm, categories, and what it cost."""
    categories = ordered(set(outcome.categories.values()))
    told = any(name.startswith(_TOLD) for name in outcome.probes)
    first = outcome.systems[0].label
    names = [_SHORT.get(name, name.lower() if name.isalpha() and name != "STS" else name) for name in categories]
    heads = ["arm", "seeds", "average", "deviation over seeds", f"minus {first}", "95 %", *names]
    heads += [*(["nats Q to D", "nats D to Q"] if told else []), "steps", "TFLOP", "minutes"]
    rows = [
        _row(system, outcome, categories, told, [job for job in jobs if job.arm == system.label])
        for system in outcome.systems
    ]
    notes = [
        f"{len(outcome.tasks)} tasks ({', '.join(outcome.tasks)}), scores times 100; intervals are paired over "
        "examples and seeds. Nats: what a vector tells of the other side, a token. TFLOP (by formula) and minutes are "
        "of training.",
        *outcome.notes,
    ]
    body = "\n".join(_line(row) for row in (heads, ["---"] * len(heads), *rows))
    listed = "\n".join(f"- `{name}`: {arm.about}" for name, arm in experiment.arm.items())
    return "\n\n".join([body, *notes, listed])


def chart_of(experiment: Experiment, outcome: Comparison) -> Chart:
    """Return how the arms got there where they were looked at while they trained, and where they end otherwise."""
    curves = _mean_curves(outcome)
    if curves:
        stage = outcome.curves[-1].stage
        return Chart(
            "curves", f"{experiment.name}: average while training", "lines",
            f"step of the last stage ({stage})", "average x 100, mean over seeds", tuple(curves),
        )  # fmt: skip
    chosen = {chart.name: replace(chart, title=f"{experiment.name}: {chart.title}") for chart in charts(outcome)}
    return chosen.get("differences", chosen["scores"])


def _mean_curves(outcome: Comparison) -> list[Series]:
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for curve in outcome.curves:
        if curve.quantity == "average":
            arm = curve.run.rpartition("-")[0]
            for step, value in curve.points:
                points[arm][step].append(HUNDRED * value)
    return [
        Series(arm, tuple(_mark(step, values) for step, values in sorted(steps.items())), number)
        for number, (arm, steps) in enumerate(points.items())
    ]


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


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
