"""Charts as PNG files, by matplotlib, for papers and slides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antiphon.cli.report.charts import Chart, Mark
from antiphon.errors import ConfigError

COLOURS = ("#0060a0", "#c4480a", "#00795a", "#a8407f", "#946200", "#2f7fae", "#6a51a3", "#4a4a46")
_SHAPES = ("o", "s", "^", "D")
_DOTS_PER_INCH = 160


def write(drawn: Sequence[Chart], folder: Path) -> list[Path]:
    """Write each chart to a PNG in the folder and return the files; ConfigError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("PNGs are drawn by matplotlib; install antiphon[plots], or do without --png.") from error
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    paths = []
    for chart in drawn:
        rows = len(chart.rows) * (0.25 + 0.11 * len(chart.series))
        figure = Figure(figsize=(8.6, max(rows + 1.4, 2.4) if chart.rows else 4.2), layout="constrained")
        _draw(figure.add_subplot(), chart)
        paths.append(folder / f"{chart.name}.png")
        figure.savefig(paths[-1], dpi=_DOTS_PER_INCH)
    return paths


def _draw(axes: Any, chart: Chart) -> None:
    lanes = len(chart.series)
    for lane, series in enumerate(chart.series):
        style = {
            "color": COLOURS[series.style % len(COLOURS)],
            "marker": _SHAPES[series.style % len(_SHAPES)],
            "markersize": 4.5,
        }
        shift = 0.6 * ((lane + 0.5) / lanes - 0.5) if chart.kind == "rows" else 0.0
        xs, ys = [mark.x for mark in series.marks], [mark.y + shift for mark in series.marks]
        line = "-" if chart.kind == "lines" else "none"
        bars = _whiskers(series.marks, "xerr" if chart.kind == "rows" else "yerr")
        axes.errorbar(xs, ys, linestyle=line, linewidth=1.4, label=series.name, **style, **bars)
    if chart.rows:
        axes.set_yticks(range(len(chart.rows)), chart.rows)
        axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    if chart.zero:
        axes.axvline(0, color="black", linewidth=1)
    if chart.logarithmic:
        axes.set_xscale("log")
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    axes.grid(axis="x" if chart.rows else "both", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=8)


def _whiskers(marks: Sequence[Mark], direction: str) -> dict[str, Any]:
    if not any(mark.low is not None for mark in marks):
        return {}
    middle = [mark.x if direction == "xerr" else mark.y for mark in marks]
    low = [0.0 if mark.low is None else m - mark.low for m, mark in zip(middle, marks, strict=True)]
    high = [0.0 if mark.high is None else mark.high - m for m, mark in zip(middle, marks, strict=True)]
    return {direction: [[max(value, 0.0) for value in low], [max(value, 0.0) for value in high]]}
