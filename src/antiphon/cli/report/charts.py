"""Charts as data: what is drawn, in which order and on which axes; svg.py draws it.

All axes are labelled and show the range that is drawn; a chart of differences always has its zero, and no bar is cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from antiphon.evaluation.comparison import Comparison, System

HUNDRED = 100.0
GIGA = 1e9
Kind = Literal["rows", "points", "lines"]


@dataclass(frozen=True)
class Mark:
    """A point, with its interval where it has one; in a chart of rows `x` is the figure and `y` the row."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Marks of one colour and shape."""

    name: str
    marks: tuple[Mark, ...]
    style: int
    """The number of its colour and shape."""


@dataclass(frozen=True)
class Chart:
    """One picture."""

    name: str
    """Of its file."""
    title: str
    kind: Kind
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    rows: tuple[str, ...] = ()
    """The names of the rows of a chart of rows, from the top."""
    zero: bool = False
    """Whether zero is marked."""
    logarithmic: bool = False
    """Whether x is."""
    remark: str = ""


def charts(comparison: Comparison) -> list[Chart]:
    """Return the charts that there is something to draw in."""
    drawn = [_by_task(comparison), _differences(comparison), _against_compute(comparison), *_curves(comparison)]
    return [chart for chart in drawn if chart is not None and any(series.marks for series in chart.series)]


def _by_task(comparison: Comparison) -> Chart:
    series = []
    for number, system in enumerate(comparison.systems):
        marks = []
        for row, task in enumerate(comparison.tasks):
            figures = system.tasks[task]
            interval = figures.interval
            low, high = (interval.low, interval.high) if interval else (None, None)
            marks.append(_row(figures.main, row, low, high))
        series.append(Series(system.label, tuple(marks), number))
    return Chart(
        "scores",
        "Scores by task",
        "rows",
        "main score x 100, with its 95 % interval over examples",
        "",
        tuple(series),
        rows=tuple(comparison.tasks),
        remark="Metrics differ from task to task, so rows are not to be compared with each other.",
    )


def _differences(comparison: Comparison) -> Chart | None:
    first, *others = comparison.systems
    series = []
    for number, system in enumerate(others, start=1):
        marks = []
        for row, task in enumerate(comparison.tasks):
            difference = system.tasks[task].difference
            if difference is not None:
                marks.append(_row(difference.mean, row, difference.low, difference.high))
        if system.difference is not None:
            overall = system.difference
            marks.append(_row(overall.mean, len(comparison.tasks), overall.low, overall.high))
        series.append(Series(system.label, tuple(marks), number))
    if not series:
        return None
    return Chart(
        "differences",
        f"Differences from {first.label}",
        "rows",
        "difference of the main score x 100, paired, with its 95 % interval",
        "",
        tuple(series),
        rows=(*comparison.tasks, "all tasks"),
        zero=True,
        remark=f"Right of zero is better than {first.label}. Of many intervals at 95 % one in twenty misses by chance.",
    )


def _row(figure: float, row: int, low: float | None, high: float | None) -> Mark:
    return Mark(
        HUNDRED * figure,
        row,
        None if low is None else HUNDRED * low,
        None if high is None else HUNDRED * high,
    )


def _against_compute(comparison: Comparison) -> Chart | None:
    series = []
    for number, system in enumerate(comparison.systems):
        flops = system.cost("flops_per_text")
        if flops:
            series.append(Series(system.label, (_average(system, flops / GIGA),), number))
    if not series:
        return None
    return Chart(
        "compute",
        "Score against compute",
        "points",
        "GFLOP for one text, by formula (logarithmic)",
        f"average of {len(comparison.tasks)} tasks x 100",
        tuple(series),
        logarithmic=True,
        remark="The axis of scores does not begin at zero. Fewer operations for the same score is further left.",
    )


def _average(system: System, x: float) -> Mark:
    average = system.average
    return Mark(x, HUNDRED * average.mean, HUNDRED * average.low, HUNDRED * average.high)


def _curves(comparison: Comparison) -> list[Chart]:
    """One chart for the losses of each stage, and one for each quantity that was evaluated in it."""
    out, curves = [], comparison.curves
    # a run with scores has one colour in all charts
    runs = list(dict.fromkeys([*(one.label for one in comparison.systems), *(curve.run for curve in curves)]))
    for stage, quantity in dict.fromkeys((curve.stage, curve.quantity) for curve in curves):
        chosen = [curve for curve in curves if (curve.stage, curve.quantity) == (stage, quantity)]
        factor = HUNDRED if chosen[0].is_score else 1.0
        series = tuple(
            Series(curve.run, tuple(Mark(step, factor * value) for step, value in curve.points), runs.index(curve.run))
            for curve in chosen
        )
        out.append(
            Chart(
                f"{stage}-{quantity}",
                f"{quantity} in {stage}",
                "lines",
                f"step of {stage}",
                f"{quantity} x 100" if chosen[0].is_score else quantity,
                series,
                remark="" if chosen[0].is_score else "Losses of different objectives are not to be compared.",
            )
        )
    return out


def ticks(low: float, high: float, wanted: int = 6, *, whole: bool = False) -> list[float]:
    """Return round numbers that span the range, about as many as wanted, whole ones where steps are counted."""
    if low == high:  # what is alone stands in the middle
        low, high = low - (abs(low) / 10 or 1.0), high + (abs(high) / 10 or 1.0)
    raw = (high - low) / max(wanted - 1, 1)
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * 0.999)
    if whole:
        step = float(max(1, math.ceil(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten that span the range."""
    candidates = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        for factor in (1, 2, 5)
    ]
    below = [value for value in candidates if value <= low * 0.95]
    above = [value for value in candidates if value >= high * 1.05]
    return [value for value in candidates if below[-1] <= value <= above[0]]


def extent(chart: Chart) -> tuple[float, float, float, float]:
    """Return the least and greatest x and y of all marks and intervals; zero is inside where it is marked."""
    marks = [mark for series in chart.series for mark in series.marks]
    xs, ys = [mark.x for mark in marks], [mark.y for mark in marks]
    ends = [end for mark in marks for end in (mark.low, mark.high) if end is not None]
    (xs if chart.kind == "rows" else ys).extend(ends)
    if chart.zero:
        xs.append(0.0)
    return min(xs), max(xs), min(ys), max(ys)
