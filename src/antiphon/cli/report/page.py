"""The comparison as one HTML file: tables that sort, charts, methods; no network, no other file.

The page forbids itself every request by its content security policy; fonts are those of the system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from antiphon.cli.report.charts import GIGA, HUNDRED, charts
from antiphon.cli.report.published_lines import NOTE, beside
from antiphon.cli.report.svg import NARROW, asset, draw, shape

if TYPE_CHECKING:
    from antiphon.evaluation.comparison import Comparison, System
    from antiphon.evaluation.scores import TaskScore
    from antiphon.evaluation.statistics import Interval

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Cell:
    """A cell: its words, what is sorted by, a second line, and how it looks."""

    words: str
    value: float | None = None
    small: str = ""
    look: str = ""

    def html(self, tag: str = "td") -> str:
        """Return the element; the words are escaped here."""
        look = f' class="{self.look}"' if self.look else ""
        value = "" if self.value is None else f' data-value="{self.value!r}"'
        small = f"<small>{escape(self.small)}</small>" if self.small else ""
        return f"<{tag}{look}{value}>{escape(self.words)}{small}</{tag}>"


def page(comparison: Comparison) -> str:
    """Return the whole page."""
    systems, tasks = comparison.systems, comparison.tasks
    many = f"A comparison of {len(systems)} systems"
    names = " vs. ".join(system.label for system in systems) if len(systems) < 4 else many
    against = f", measured against {escape(systems[0].label)}" if len(systems) > 1 else ""
    parts = [
        f"<h1>{escape(names)}</h1>",
        f'<p class="lead">{_count(len(tasks))}{against}.</p>',
        _legend(systems),
        _summary(comparison),
        "<h2>By category</h2>",
        _categories(comparison),
        *_published(comparison),
        "<h2>By task</h2>",
        _tasks(comparison),
        *_figures(comparison),
        *_probes(comparison.probes),
        "<h2>How to read this</h2>",
        asset("method.html"),
        *([f"<h3>Left out</h3>{_list(comparison.notes)}"] if comparison.notes else []),
        *_data_notes(systems),
        "<h2>What was run</h2>",
        _provenance(systems),
    ]
    return _whole(names, "\n".join(parts))


def _whole(title: str, body: str) -> str:
    style = "".join(asset(name) for name in ("light.css", "comparison.css", "chart.css"))
    script = asset("comparison.js")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>\n{style}</style></head>\n<body><main>\n{body}\n</main><script>\n{script}</script></body></html>\n"
    )


def _table(caption: str, heads: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> str:
    head = "".join(cell.html("th") for cell in heads)
    body = "".join(f"<tr>{''.join(cell.html() for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="sortable"><caption><span>{escape(caption)}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _legend(systems: Sequence[System]) -> str:
    keys = "".join(f"<li>{shape(number)}{escape(system.label)}</li>" for number, system in enumerate(systems))
    return f'<ul class="legend">{keys}</ul>'


def _summary(comparison: Comparison) -> str:
    heads = (
        "system",
        "average",
        "difference",
        "better on",
        "worse on",
        "tokens/text",
        "GFLOP/text",
        "ms/text",
        "seeds",
    )
    best = max(system.average.mean for system in comparison.systems)
    rows = []
    for system in comparison.systems:
        deviation = system.seed_deviation
        seeds = Cell(str(len(system.runs)), len(system.runs), f"sd {HUNDRED * deviation:.2f}" if deviation else "")
        first = system.difference is None
        rows.append(
            [
                Cell(system.label, small=_model(system)),
                _score(system.average.mean, system.average, "best" if system.average.mean == best else ""),
                _gain(system.difference),
                Cell("" if first else str(system.wins), None if first else system.wins),
                Cell("" if first else str(system.losses), None if first else system.losses),
                _figure(system.cost("tokens_per_text"), 1.0, ".1f"),
                _figure(system.cost("flops_per_text"), GIGA, ".3g"),
                _figure(system.cost("seconds_per_text"), 1e-3, ".1f"),
                seeds,
            ]
        )
    return _table("The average of all tasks; click a head to sort.", [Cell(head) for head in heads], rows)


def _categories(comparison: Comparison) -> str:
    categories = list(dict.fromkeys(comparison.categories.values()))
    heads = [Cell("system")]
    for category in categories:
        heads.append(Cell(category, small=_count(list(comparison.categories.values()).count(category))))
    heads.append(Cell("average", small=_count(len(comparison.tasks))))
    means = {
        system.label: [
            _mean([system.tasks[task].main for task, kind in comparison.categories.items() if kind == category])
            for category in categories
        ]
        + [system.average.mean]
        for system in comparison.systems
    }
    best = [max(column) for column in zip(*means.values(), strict=True)]
    rows = [
        [Cell(label), *(_score(v, None, "best" if v == top else "") for v, top in zip(values, best, strict=True))]
        for label, values in means.items()
    ]
    return _table("Mean of the main scores in each category, the best in bold.", heads, rows)


def _published(comparison: Comparison) -> list[str]:
    if not comparison.published:
        return []
    heads, rows = beside(comparison)
    cells = [[Cell(words, look="" if number > 1 else "words") for number, words in enumerate(row)] for row in rows]
    return ["<h2>Beside what is published</h2>", _table(NOTE, [Cell(name) for name in heads], cells)]


def _count(tasks: int) -> str:
    return f"{tasks} task" + "s" * (tasks != 1)


def _tasks(comparison: Comparison) -> str:
    first, *others = comparison.systems
    heads = [Cell("task"), Cell("category", look="words"), Cell("metric", look="words"), Cell(first.label)]
    for system in others:
        heads += [Cell(system.label), Cell("difference")]
    rows = []
    for task, category in comparison.categories.items():
        best = max(system.tasks[task].main for system in comparison.systems)
        row = [Cell(task), Cell(category, look="words"), Cell(comparison.metrics[task], look="words")]
        for system in comparison.systems:
            figures = system.tasks[task]
            row.append(_score(figures.main, figures.interval, "best" if figures.main == best else ""))
            if system is not first:
                plain = HUNDRED * (figures.main - first.tasks[task].main)
                row.append(_gain(figures.difference) if figures.difference else Cell(f"{plain:+.2f}", plain))
        rows.append(row)
    return _table("Main scores times 100, the best in bold; 95 % intervals below them.", heads, rows)


def _score(value: float, interval: Interval | None, look: str) -> Cell:
    return Cell(f"{HUNDRED * value:.2f}", HUNDRED * value, _range(interval), look)


def _gain(difference: Interval | None) -> Cell:
    if difference is None:
        return Cell("")
    look = ("up" if difference.low > 0 else "down") if difference.excludes_zero else ""
    return Cell(f"{HUNDRED * difference.mean:+.2f}", HUNDRED * difference.mean, _range(difference, "+"), look)


def _range(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None or interval.low != interval.low else interval.in_hundreds(sign)


def _figure(value: float | None, unit: float, form: str) -> Cell:
    return Cell("") if value is None else Cell(format(value / unit, form), value / unit)


def _figures(comparison: Comparison) -> list[str]:
    out = []
    for chart in charts(comparison):
        remark = f'<figcaption class="remark">{escape(chart.remark)}</figcaption>' if chart.remark else ""
        names = [(series.name, series.style) for series in chart.series if series.marks]
        keys = "".join(f"<li>{shape(style)}{escape(name)}</li>" for name, style in names)
        drawn = draw(chart) + draw(chart, NARROW)  # the style sheet shows one of them
        legend = f'<ul class="legend">{keys}</ul>'
        out.append(f"<h2>{escape(chart.title)}</h2><figure>{legend}{drawn}{remark}</figure>")
    return out


def _probes(probes: Mapping[str, Mapping[str, TaskScore]]) -> list[str]:
    out = ["<h2>Probes</h2>"] if probes else []
    for name, by_label in probes.items():
        metrics = list(dict.fromkeys(metric for score in by_label.values() for metric in score.metrics))
        rows = [
            [Cell(label), *(_plain(score.metrics.get(metric)) for metric in metrics)]
            for label, score in by_label.items()
        ]
        notes = list(dict.fromkeys(note for score in by_label.values() for note in score.notes))
        out.append(f"<h3>{escape(name)}</h3>")
        out.append(_table("", [Cell("system"), *(Cell(metric) for metric in metrics)], rows))
        out += [f'<p class="remark">{escape(note)}</p>' for note in notes]
    return out


def _plain(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.4g}", value)


def _data_notes(systems: Sequence[System]) -> list[str]:
    run = systems[0].runs[0]
    notes = [f"{name}: {note}" for name in systems[0].tasks for note in run[name].notes]
    return [f"<h3>Of the data</h3>{_list(notes)}"] if notes else []


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _provenance(systems: Sequence[System]) -> str:
    heads = [Cell(name, look="words") for name in ("system", "model", "revision", "instructions", "settings")]
    rows = [
        [
            Cell(system.label),
            Cell(run.model, look="words"),
            Cell(run.revision[:16], look="words"),
            Cell(run.instructions, look="words"),
            Cell(", ".join(f"{key} {value}" for key, value in run.settings.items() if value is not None), look="words"),
        ]
        for system in systems
        for run in system.runs
    ]
    return _table("Revisions are hashes of weights, tokenizer, configuration, template and instructions.", heads, rows)


def _model(system: System) -> str:
    return system.runs[0].model.rstrip("/").rsplit("/", 1)[-1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
