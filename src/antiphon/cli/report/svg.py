"""Charts as SVG: inline, where the page's style sheet colours them for both themes, and as files in light colours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape
from importlib.resources import files
from itertools import pairwise
from textwrap import wrap

from antiphon.cli.report.charts import Chart, Mark, Series, extent, logarithmic_ticks, ticks

STYLES = 8
"""Colours and shapes in the style sheet; after that they begin again."""
WIDE, NARROW = 860, 380
"""Widths of a drawing, in its own units: for a page and a file, and for a telephone, whose letters are as large."""
_ROW, _LANE = 12, 15
_TOP, _BOTTOM = 14, 32
_CHARACTER = 6.4
_BESIDE = 0.24
"""The share of the width that rows' names may take; longer ones stand above their rows and leave it to them."""
_A_TICK = 90
"""The width for which an axis gets a tick, about."""
_LINE = 18
"""The height of a line of words."""

Scale = Callable[[float], float]


def draw(chart: Chart, width: int = WIDE) -> str:
    """Return the chart as an <svg> element, with a title for readers who cannot see it."""
    body, height = (_rows if chart.kind == "rows" else _plane)(chart, width)
    kind = "chart" if width == WIDE else "chart narrow"
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height:g}" role="img" aria-label="{escape(chart.title)}">'
        f"<title>{escape(chart.title)}</title>{body}</svg>"
    )


def drawing(chart: Chart) -> str:
    """Return the chart as the text of an SVG file, with its title, a legend of its several series and its remark.

    The file needs no other and no custom properties of CSS, which most converters do not know.
    """
    body, height = (_rows if chart.kind == "rows" else _plane)(chart, WIDE)
    keys = [series for series in chart.series if series.marks] if len(chart.series) > 1 else []
    top = _LINE * (2 + len(keys))
    whole = top + height + (_LINE if chart.remark else 0)
    lines = [f'<text class="title" x="16" y="{_LINE + 4}">{escape(chart.title)}</text>']
    for number, series in enumerate(keys):
        y = _LINE * (2 + number) + 4
        lines.append(f'<g class="{_style(series)}">{_shape(series.style, 22, y - 4)}</g>')
        lines.append(f'<text x="34" y="{y}">{escape(series.name)}</text>')
    lines.append(f'<g transform="translate(0 {top})">{body}</g>')
    if chart.remark:
        lines.append(f'<text class="remark" x="16" y="{whole - 8:g}">{escape(chart.remark)}</text>')
    colours = dict(re.findall(r"--(\w+): (#\w+)", asset("light.css")))
    style = re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], asset("chart.css"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" font-family="sans-serif" role="img" '
        f'viewBox="0 0 {WIDE} {whole:g}" width="{WIDE}" height="{whole:g}">\n<title>{escape(chart.title)}</title>\n'
        f'<style>\n{style}</style>\n<rect class="paper" width="100%" height="100%"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def asset(name: str) -> str:
    """Return a file of the report's."""
    return files("antiphon.cli.report").joinpath("assets", name).read_text(encoding="utf-8")


def _rows(chart: Chart, width: int) -> tuple[str, float]:
    beside = 16 + _CHARACTER * max(len(name) for name in chart.rows)
    left, head = (beside, 0) if beside <= _BESIDE * width else (24.0, _LINE)
    lanes = len(chart.series)
    pitch = head + _ROW + _LANE * lanes * (0.55 if lanes > 1 else 0.6)
    bottom = _TOP + pitch * len(chart.rows)
    low, high, *_ = extent(chart)
    marked = ticks(low, high, round((width - left) / _A_TICK))
    x = _linear(marked[0], marked[-1], left, width - 20)
    out = [_grid_x(value, x(value), bottom, tick_words(value, marked)) for value in marked]
    if chart.zero:
        out.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>')
    for number, name in enumerate(chart.rows):
        top = _TOP + pitch * number
        if number % 2:
            out.append(f'<rect class="band" x="0" y="{top:.1f}" width="{width}" height="{pitch:.1f}"/>')
        if head:
            out.append(f'<text x="16" y="{top + _LINE - 4:.1f}">{_shortened(name, width)}</text>')
        else:
            out.append(f'<text class="name" x="{left - 8:.1f}" y="{top + pitch / 2 + 4:.1f}">{escape(name)}</text>')
    for lane, series in enumerate(chart.series):
        for mark in series.marks:
            y = _TOP + pitch * mark.y + head + _ROW / 2 + (pitch - head - _ROW) * (lane + 0.5) / lanes
            out.append(_horizontal(series, mark, x, y, chart.rows[int(mark.y)]))
    label, under = _label(left, width - 20, bottom, chart.x_label)
    return "".join([*out, label]), bottom + under


def _shortened(name: str, width: int) -> str:
    """Return a name that fits into the width of a chart, escaped; what was cut is told to who points at it."""
    most = int((width - 32) / _CHARACTER)
    return escape(name) if len(name) <= most else f"{escape(name[: most - 1])}…<title>{escape(name)}</title>"


def _plane(chart: Chart, width: int) -> tuple[str, float]:
    bottom, left, right = 332.0, 64.0, width - 24.0
    low_x, high_x, low_y, high_y = extent(chart)
    across = (
        logarithmic_ticks(low_x, high_x)
        if chart.logarithmic
        else ticks(low_x, high_x, round((right - left) / _A_TICK), whole=chart.kind == "lines")
    )
    up = ticks(low_y, high_y)
    measure = math.log10 if chart.logarithmic else float
    inner = _linear(measure(across[0]), measure(across[-1]), left, right)

    def x(value: float) -> float:
        return inner(measure(value))

    y = _linear(up[0], up[-1], bottom, _TOP)
    out = [_grid_x(value, x(value), bottom, tick_words(value, across)) for value in across]
    for value in up:
        out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        out.append(f'<text class="tick end" x="{left - 8}" y="{y(value) + 4:.1f}">{tick_words(value, up)}</text>')
    for series in chart.series:
        if chart.kind == "lines" and len(series.marks) > 1:
            path = " ".join(f"{x(mark.x):.1f},{y(mark.y):.1f}" for mark in series.marks)
            out.append(f'<polyline class="{_style(series)}" points="{path}"/>')
        out.extend(_vertical(series, mark, x, y, dots=len(series.marks) <= 60) for mark in series.marks)
    label, under = _label(left, right, bottom, chart.x_label)
    out.append(label)
    middle = (bottom + _TOP) / 2
    out.append(
        f'<text class="label" x="16" y="{middle:.1f}" transform="rotate(-90 16 {middle:.1f})">'
        f"{escape(chart.y_label)}</text>"
    )
    return "".join(out), bottom + under


def _horizontal(series: Series, mark: Mark, x: Scale, y: float, row: str) -> str:
    out = ""
    words = f"{series.name}, {row}: {mark.x:.2f}"
    if mark.low is not None and mark.high is not None:
        words += f" [{mark.low:.2f}, {mark.high:.2f}]"
        out += f'<line class="whisker" x1="{x(mark.low):.1f}" x2="{x(mark.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return _group(series, words, out + _shape(series.style, x(mark.x), y))


def _vertical(series: Series, mark: Mark, x: Scale, y: Scale, *, dots: bool) -> str:
    out = ""
    words = f"{series.name}: {mark.x:g}, {mark.y:.4g}"
    if mark.low is not None and mark.high is not None:
        words += f" [{mark.low:.2f}, {mark.high:.2f}]"
        across = f'x1="{x(mark.x):.1f}" x2="{x(mark.x):.1f}"'
        out += f'<line class="whisker" {across} y1="{y(mark.low):.1f}" y2="{y(mark.high):.1f}"/>'
    if dots:
        out += _shape(series.style, x(mark.x), y(mark.y))
    return _group(series, words, out) if out else ""


def _group(series: Series, words: str, inner: str) -> str:
    return f'<g class="{_style(series)}"><title>{escape(words)}</title>{inner}</g>'


def _style(series: Series) -> str:
    return f"s{series.style % STYLES}"


def shape(style: int) -> str:
    """Return the mark of a style alone, for a legend."""
    mark = f'<g class="s{style % STYLES}">{_shape(style, 7, 7)}</g>'
    return f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{mark}</svg>'


def _shape(style: int, x: float, y: float) -> str:
    kind = style % 4
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if kind == 1:
        return f'<rect x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>'
    points = ((0, -5), (4.6, 3.4), (-4.6, 3.4)) if kind == 2 else ((0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0))
    return f'<polygon points="{" ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in points)}"/>'


def _grid_x(value: float, x: float, bottom: float, words: str) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 17:.1f}">{words}</text>'
    )


def _label(left: float, right: float, bottom: float, words: str) -> tuple[str, float]:
    """Return the words under an axis, in as many lines as they need, and the height of all that is under it."""
    lines = wrap(words, max(1, int((right - left) / _CHARACTER)))
    out = [
        f'<text class="label" x="{(left + right) / 2:.1f}" y="{bottom + _BOTTOM + _LINE * number + 8:.1f}">'
        f"{escape(line)}</text>"
        for number, line in enumerate(lines)
    ]
    return "".join(out), _BOTTOM + _LINE * len(lines)


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low or 1.0) * (end - start)


def tick_words(value: float, among: list[float]) -> str:
    """Return a tick's number with as many digits as tell it from its neighbours."""
    step = min((b - a for a, b in pairwise(among)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(round(step, digits) - step) > 1e-6 * step:  # 2.5 and 0.25 have one digit more than their place says
        digits += 1
    return f"{value:,.{digits}f}" if abs(value) > 1e-12 else "0"
