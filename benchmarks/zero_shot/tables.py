"""The table of a model's rows with paired intervals, and the plot of score against compute."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import antiphon
from antiphon.cli.report.charts import Chart, Mark, Series
from antiphon.cli.report.svg import drawing
from antiphon.evaluation.comparison import Comparison, System
from antiphon.evaluation.statistics import Interval

PLAIN = "none"
BASELINES = ("echo-rewrite", "classical-write")
"""Plain, at the last layer: what every row is compared with."""


class Rows:
    """Rows of one model as they were scored: what each is, costs, and reaches."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.facts = {place: json.loads((place / "row.json").read_text(encoding="utf-8")) for place in places}
        self.compared: dict[str, Comparison] = {}
        for baseline in BASELINES:
            first = next((place for place in places if self._is(place, baseline)), None)
            if first is not None:
                ordered = [first, *(place for place in places if place != first)]
                self.compared[baseline] = antiphon.compare(ordered)

    def _is(self, place: Path, baseline: str) -> bool:
        facts, whole = self.facts[place], max(int(each["layer"].split()[0]) for each in self.facts.values())
        return (facts["method"], facts["calibration"], facts["layer"]) == (baseline, PLAIN, str(whole))

    def systems(self, baseline: str) -> dict[str, System]:
        return {system.label: system for system in self.compared[baseline].systems}


def print_table(name: str, places: Sequence[Path]) -> None:
    """Print the rows of a model, by method, then by layer, then by score."""
    rows = Rows(places)
    categories = next(iter(rows.compared.values())).categories
    kinds = list(dict.fromkeys(categories.values()))
    against = [f"minus {baseline}, 95 %" for baseline in rows.compared]
    head = ["method", "layer", "calibration", "tokens", "GFLOP", "CPU ms", "average", *against, *kinds]
    print(f"\n{name}: {', '.join(categories)}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for facts in sorted(rows.facts.values(), key=lambda each: (each["method"], _depth(each), each["calibration"])):
        label = _label(facts)
        systems = [rows.systems(baseline)[label] for baseline in rows.compared]
        calibration = facts["calibration"] + (f" ({facts['fitted']})" if facts["fitted"] != "wikipedia" else "")
        by_kind = [
            mean(figures.main for task, figures in systems[0].tasks.items() if categories[task] == kind)
            for kind in kinds
        ]
        cells = [
            *(facts["method"], facts["layer"], calibration),
            *(f"{facts['tokens']:.0f}", f"{facts['gflop']:.2f}", f"{facts['milliseconds']:.0f}"),
            f"{100 * systems[0].average.mean:.1f}",
            *(_difference(system.difference) for system in systems),
            *(f"{100 * figure:.1f}" for figure in by_kind),
        ]
        print(f"| {' | '.join(cells)} |")


def _depth(facts: Mapping[str, str]) -> tuple[int, str]:
    return -int(facts["layer"].split()[0]), facts["layer"]


def _label(facts: Mapping[str, str]) -> str:
    tail = "" if facts["calibration"] == PLAIN else f", {facts['calibration']} ({facts['fitted']})"
    return f"{facts['method']}, layer {facts['layer']}{tail}"


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{100 * interval.mean:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def write_plot(found: Mapping[str, Sequence[Path]], folder: Path) -> None:
    """Write, for each model, an SVG of its rows' averages over what a text costs, plain and standardised ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, places in found.items():
        rows = Rows(places)
        systems = rows.systems(BASELINES[0])
        series = [
            Series(title, tuple(_mark(facts, systems) for facts in rows.facts.values() if test(facts)), number)
            for number, (title, test) in enumerate(_SERIES.items())
        ]
        chart = Chart(
            f"zero-shot-{name}",
            f"Score against compute, without training: {name}",
            "points",
            "GFLOP for one text, by formula (logarithmic)",
            f"average of {len(rows.compared[BASELINES[0]].tasks)} tasks x 100",
            tuple(one for one in series if one.marks),
            logarithmic=True,
        )
        (folder / f"{chart.name}.svg").write_text(drawing(chart), encoding="utf-8")


_SERIES = {
    f"{family}, {kind}": lambda facts, family=family, plain=plain: (
        _family(facts["method"]) == family
        and (facts["calibration"] == PLAIN if plain else facts["calibration"] == "standardize")
        and facts["fitted"] == "wikipedia"
        and "raw" not in facts["layer"]
    )
    for family in ("one pass, mean", "one pass, PromptEOL", "echo", "several passes")
    for kind, plain in (("plain", True), ("standardised", False))
}


def _family(method: str) -> str:
    if "beside" in method or "questions" in method:
        return "several passes"
    if "echo" in method:
        return "echo"
    return "one pass, PromptEOL" if "EOL" in method else "one pass, mean"


def _mark(facts: Mapping[str, str], systems: Mapping[str, System]) -> Mark:
    average = systems[_label(facts)].average
    return Mark(float(facts["gflop"]), 100 * average.mean)
