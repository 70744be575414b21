"""Compare runs: per task and overall, paired example by example, over seeds, and beside what they cost.

Runs of one label are seeds of one system. Every system is compared with the first one. Examples are resampled within a
task, the same draws for all systems; seeds are resampled with them where a system has several. R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from antiphon.data.tabular import ResultTable, Tabular
from antiphon.errors import ConfigError, DataError
from antiphon.evaluation.curves import Curve, read_curves
from antiphon.evaluation.published_scores import PublishedRow
from antiphon.evaluation.published_scores import published as published_rows
from antiphon.evaluation.scores import PROBE, SCORES, Scores, TaskScore, load_scores, ordered
from antiphon.evaluation.statistics import RESAMPLES, Interval, Numbers, over_tasks, percentiles

_SEED = 0
_INSIDE = ("", "evaluation")
"""Where the scores of a run's folder lie."""


@dataclass(frozen=True)
class TaskFigures:
    """One system on one task: the mean over its seeds."""

    main: float
    interval: Interval | None
    """None where the score is no statistic of examples."""
    difference: Interval | None = None
    """From the first system, on the same draws; None for the first system and where examples are missing."""
    values: tuple[float, ...] = ()
    """By seed."""


@dataclass(frozen=True)
class System:
    """What is compared: all runs of one label."""

    label: str
    runs: tuple[Scores, ...]
    tasks: Mapping[str, TaskFigures]
    average: Interval
    """Over the common tasks, each once."""
    difference: Interval | None
    """Of the average, from the first system."""
    wins: int
    losses: int
    """Tasks on which the interval of the difference lies above, or below, zero."""

    @property
    def seed_deviation(self) -> float | None:
        """The standard deviation over seeds of the average over the common tasks; None for one seed."""
        averages = np.mean([figures.values for figures in self.tasks.values()], axis=0)
        return float(np.std(averages, ddof=1)) if len(averages) > 1 else None

    def cost(self, name: str) -> float | None:
        """Return a figure of `Cost` for one text, over all texts of the common tasks; None where it is unknown."""
        costs = [score.cost for run in self.runs for task in self.tasks if (score := run[task]).cost is not None]
        known = [(cost.texts, getattr(cost, name)) for cost in costs if cost and getattr(cost, name) is not None]
        texts = sum(count for count, _ in known)
        return sum(count * figure for count, figure in known) / texts if texts else None


@dataclass(frozen=True, repr=False)
class Comparison(Tabular):
    """Systems side by side on the tasks that all of them have."""

    systems: tuple[System, ...]
    categories: Mapping[str, str]
    """The category of every common task, in the order of the tables."""
    metrics: Mapping[str, str]
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    probes: Mapping[str, Mapping[str, TaskScore]] = field(default_factory=dict)
    """By probe and label, the first seed's."""
    published: tuple[PublishedRow, ...] = ()
    """What papers print, to be shown beside."""

    @property
    def tasks(self) -> list[str]:
        """The common tasks, by category."""
        return list(self.categories)

    def tables(self) -> list[ResultTable]:
        """Return the tables of systems and of tasks."""
        first = self.systems[0].label
        systems = [
            (
                one.label,
                f"{100 * one.average.mean:.2f}",
                *((_gain(one.difference), f"{one.wins}", f"{one.losses}") if one.difference else ("", "", "")),
            )
            for one in self.systems
        ]
        tasks = [
            (task, *(cell for one in self.systems for cell in _columns(one.tasks[task], one is self.systems[0])))
            for task in self.tasks
        ]
        heads = [name for one in self.systems for name in (one.label, "difference")]
        del heads[1]  # the first system has no difference from itself
        caption = f"Scores x 100; differences are from {first}, intervals 95 %"
        return [
            ResultTable(caption, ("system", "mean", "difference", "better on", "worse on"), systems),
            ResultTable("By task", ("task", *heads), tasks),
        ]


def compare(runs: Sequence[str | Path | Scores], *, published: Sequence[str] = ()) -> Comparison:
    r"""Compare runs; the first one is what the others are measured against.

    A run is a folder that `evaluate` wrote, the folder of a training run (its curves are read, and its scores where it
    has any), or `Scores`. `published` names tables of papers to stand beside: anchor, echo-zero-shot, echo, llm2vec.

    Raises ConfigError for fewer than one run with scores or no common task, DataError for a folder that is no run.

    Example:
        >>> from pathlib import Path
        >>> import antiphon
        >>> _ = Path("pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "".join(
        ...     f"sort {a} items\tsort {b} items\t{5 - abs(a - b)}\n" for a in range(4) for b in range(4)))
        >>> runs = [antiphon.evaluate(antiphon.build("nano", form), ["pairs.tsv"], label=form, cache=False)
        ...         for form in ("classical-write", "echo-rewrite")]
        >>> [system.label for system in antiphon.compare(runs).systems]
        ['classical-write', 'echo-rewrite']
    """
    found, curves = _read(runs)
    if not found:
        raise ConfigError("There are no scores to compare; name folders that `antiphon evaluate --out` wrote.")
    return replace(_compared(found, tuple(curves)), published=published_rows(published))


def _read(runs: Sequence[str | Path | Scores]) -> tuple[dict[str, list[Scores]], list[Curve]]:
    found: dict[str, list[Scores]] = {}
    curves: list[Curve] = []
    for run in runs:
        scores = [run] if isinstance(run, Scores) else []
        if not isinstance(run, Scores):
            folder = Path(run)
            scores = [load_scores(folder / inside) for inside in _INSIDE if (folder / inside / SCORES).exists()]
            own = read_curves(folder)
            if not scores and not own:
                raise DataError(f"{folder} is no run: it has neither {SCORES} nor the run.json of a training run.")
            curves += _named(own, folder, [one.label for one in scores], {curve.run for curve in curves})
        for one in scores:
            seeds = found.setdefault(one.label, [])
            same = [other for other in seeds if (other.revision, other.settings) == (one.revision, one.settings)]
            if same:
                raise ConfigError(f"The run {one.label!r} was named twice; a seed counts once.")
            seeds.append(one)
    return found, curves


def _named(own: Sequence[Curve], folder: Path, labels: Sequence[str], taken: set[str]) -> list[Curve]:
    """Return a run's curves under the name that its scores have, and beside others of that name with its folder's."""
    wanted = {curve.run: labels[0] if len(labels) == 1 else curve.run for curve in own}
    names = {run: f"{name} ({folder.name})" if name in taken else name for run, name in wanted.items()}
    return [replace(curve, run=names[curve.run]) for curve in own]


def _compared(found: Mapping[str, list[Scores]], curves: tuple[Curve, ...]) -> Comparison:
    first = next(iter(found.values()))[0]
    everyone = [run for runs in found.values() for run in runs]
    notes: list[str] = []
    common = [name for name in first if _is_common(name, first[name], everyone, notes)]
    if not common:
        raise ConfigError("The runs have no task in common that was scored on the same data.")
    rank = {category: number for number, category in enumerate(ordered({first[name].category for name in common}))}
    common.sort(key=lambda name: rank[first[name].category])
    resampled = {label: {name: _resampled(name, runs) for name in common} for label, runs in found.items()}
    baseline = next(iter(found))
    systems = tuple(
        _system(label, runs, resampled[label], resampled[baseline] if label != baseline else None)
        for label, runs in found.items()
    )
    probes = {
        name: {label: runs[0][name] for label, runs in found.items() if name in runs[0].tasks}
        for name in dict.fromkeys(name for run in everyone for name in run if run[name].category == PROBE)
    }
    return Comparison(
        systems,
        {name: first[name].category for name in common},
        {name: first[name].metric for name in common},
        curves,
        tuple(notes),
        probes,
    )


def _is_common(name: str, score: TaskScore, runs: Sequence[Scores], notes: list[str]) -> bool:
    if score.category == PROBE:
        return False
    missing = [run.label for run in runs if name not in run.tasks]
    if missing:
        notes.append(f"{name} is left out: {', '.join(dict.fromkeys(missing))} was not scored on it")
        return False
    if any((run[name].revision, run[name].metric) != (score.revision, score.metric) for run in runs):
        notes.append(f"{name} is left out: the runs were scored on different data or by different metrics")
        return False
    return True


@dataclass(frozen=True)
class _Resampled:
    values: tuple[float, ...]
    """By seed."""
    draws: Numbers | None
    """(R,) means over seeds, None without examples."""
    ids: tuple[str, ...] = ()

    @property
    def main(self) -> float:
        return float(np.mean(self.values))


def _resampled(name: str, runs: Sequence[Scores]) -> _Resampled:
    values = tuple(run[name].main for run in runs)
    samples = [run[name].sample for run in runs]
    kept = [sample for sample in samples if sample is not None and len(sample) > 1]
    if len(kept) < len(samples) or len({sample.ids for sample in kept}) > 1:
        return _Resampled(values, None)
    by_seed = np.stack([sample.resampled(seed=_SEED) for sample in kept])
    if len(runs) == 1:
        return _Resampled(values, by_seed[0], kept[0].ids)
    picks = np.random.default_rng(_SEED).integers(len(runs), size=(len(runs), RESAMPLES))
    return _Resampled(values, np.take_along_axis(by_seed, picks, axis=0).mean(axis=0), kept[0].ids)


def _system(
    label: str, runs: Sequence[Scores], own: Mapping[str, _Resampled], other: Mapping[str, _Resampled] | None
) -> System:
    tasks = {}
    for name, figures in own.items():
        interval = None if figures.draws is None else percentiles(figures.main, figures.draws)
        difference = None if other is None else _difference(figures, other[name])
        tasks[name] = TaskFigures(figures.main, interval, difference, figures.values)
    differences = [figures.difference for figures in tasks.values() if figures.difference is not None]
    return System(
        label,
        tuple(runs),
        tasks,
        _average([(figures.main, figures.draws) for figures in own.values()]),
        None if other is None else _average([_minus(own[name], other[name]) for name in own]),
        sum(interval.low > 0 for interval in differences),
        sum(interval.high < 0 for interval in differences),
    )


def _columns(figures: TaskFigures, is_first: bool) -> tuple[str, ...]:
    """Return the cells of a system on a task."""
    score = f"{100 * figures.main:.2f}"
    return (score,) if is_first else (score, _gain(figures.difference) if figures.difference else "")


def _gain(difference: Interval) -> str:
    return f"{100 * difference.mean:+.2f} ({difference.in_hundreds('+')})"


def _minus(a: _Resampled, b: _Resampled) -> tuple[float, Numbers | None]:
    paired = a.draws is not None and b.draws is not None and a.ids == b.ids
    return a.main - b.main, a.draws - b.draws if paired and a.draws is not None and b.draws is not None else None


def _difference(a: _Resampled, b: _Resampled) -> Interval | None:
    figure, draws = _minus(a, b)
    return None if draws is None else percentiles(figure, draws)


def _average(figures: Sequence[tuple[float, Numbers | None]]) -> Interval:
    """Return the mean over tasks; a task without examples counts with its figure and widens no interval."""
    return over_tasks([(figure, np.full(RESAMPLES, figure) if drawn is None else drawn) for figure, drawn in figures])
