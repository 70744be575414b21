"""From what the user names to tasks that can be run: sets, mteb's tasks, local files and folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mteb
from mteb.abstasks import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from antiphon.errors import ConfigError, DataError, closest, first_line
from antiphon.evaluation.local_readers import OwnDocument
from antiphon.evaluation.local_tasks import LocalData, LocalTask, find
from antiphon.evaluation.probes import PREFIX, Context, Material, ProbeResult, named
from antiphon.evaluation.progress import characters
from antiphon.evaluation.task_sets import SETS
from antiphon.evaluation.tasks import local_task

_ENGLISH = ["eng"]
Data = tuple[AbsTask, tuple[str, ...]]
"""A task with its data, and what is to be said about the data."""
ReadTask = Callable[[LocalTask], LocalData]


@dataclass(frozen=True)
class Selected:
    """A task that was chosen and is loaded when its turn comes."""

    name: str
    load: Callable[[], Data]
    metadata: Any = None
    """mteb's, where it is mteb's task."""
    size: Callable[[], int | None] = lambda: None
    """Gives the characters of its texts, about; None where that is not known."""


@dataclass(frozen=True)
class SelectedProbe:
    """A probe that was chosen."""

    name: str
    run: Callable[[Context], ProbeResult]
    material: Material
    metadata: None = None

    def size(self) -> int | None:
        """Return None: what a probe embeds is its own business."""
        return None


Selection = Selected | SelectedProbe


def select(
    tasks: str | Path | Sequence[str | Path],
    *,
    limit: int | None = None,
    seed: int = 42,
    own_document: OwnDocument = "auto",
    strict: bool = False,
) -> list[Selection]:
    """Return the tasks of names of sets, mteb's names and local paths, each once, in the order given.

    `limit` caps the examples of local tasks; mteb's tasks are always whole. `own_document` and `strict` are for local
    tasks too (see local_readers.py).

    Raises ConfigError for an unknown name, for two tasks of one name, and for a limit on mteb's tasks.
    """

    def read(layout: LocalTask) -> LocalData:
        return layout.read(limit=limit, seed=seed, own_document=own_document, strict=strict)

    given = [tasks] if isinstance(tasks, str | Path) else list(tasks)
    found: dict[str, Selection] = {}
    for name in given:
        for task in _named(name, limit, seed, read):
            other = found.get(task.name)
            if other is not None and (task.metadata is None or other.metadata is None):
                raise ConfigError(f"Two tasks are called {task.name!r}; rename one of the files or folders.")
            if task.metadata is not None and limit is not None:
                raise ConfigError(f"{task.name} is mteb's, whose score is that of all its examples; drop the limit.")
            found.setdefault(task.name, task)
    if not found:
        raise ConfigError("There are no tasks to evaluate on; name some.")
    return list(found.values())


def _named(name: str | Path, limit: int | None, seed: int, read: ReadTask) -> Sequence[Selection]:
    if isinstance(name, str) and name.startswith(PREFIX):
        probe, material = named(name, limit=limit, seed=seed)
        words = name.partition("=")[0]
        return [SelectedProbe(f"{words}={Path(material.source).stem}" if "=" in name else words, probe, material)]
    if isinstance(name, str) and name in SETS:
        chosen = SETS[name]
        return [_of_mteb(task) for task in (*_benchmark(chosen.benchmark), *map(_english, chosen.tasks))]
    if Path(name).exists() or isinstance(name, Path) or name.startswith((".", "/", "~")):
        return [_local(layout, seed, read) for layout in find(Path(name).expanduser())]
    if is_of_mteb(name):
        return [_of_mteb(_english(name))]
    known = [task.metadata.name for chosen in SETS.values() for task in _benchmark(chosen.benchmark)]
    near = closest(name, [*SETS, *dict.fromkeys(known)])
    hint = f" Did you mean {near}?" if near is not None else ""
    raise ConfigError(f"There is no task, set, file or folder {name!r}.{hint} Sets are {', '.join(SETS)}.")


def _benchmark(name: str | None) -> Sequence[AbsTask]:
    return () if name is None else list(mteb.get_benchmark(name).tasks)


def is_of_mteb(name: str) -> bool:
    """Return whether mteb has a task of this name."""
    try:
        mteb.get_task(name)
    except KeyError:
        return False
    return True


def _english(name: str) -> AbsTask:
    """Return mteb's task of a name, as MTEB English has it where it is in there: its English pairs, its split."""
    for chosen in SETS.values():
        for task in _benchmark(chosen.benchmark if chosen.english else None):
            if task.metadata.name == name:
                return task
    task = mteb.get_task(name)
    languages = set(task.metadata.languages)
    return mteb.get_task(name, languages=_ENGLISH) if len(languages) > 1 and "eng" in languages else task


def _of_mteb(task: AbsTask) -> Selected:
    return Selected(task.metadata.name, partial(_loaded, task), task.metadata, partial(_size_of_mteb, task))


def _size_of_mteb(task: AbsTask) -> int | None:
    """Return the characters that mteb's statistics of the task tell."""
    if isinstance(task, AbsTaskAggregate):
        sizes = [_size_of_mteb(part) for part in task.metadata.tasks]
        return None if None in sizes else sum(size for size in sizes if size is not None)
    statistics = task.metadata.descriptive_stats or {}
    return sum(_lengths(statistics.get(split)) for split in task.eval_splits) or None


def _lengths(statistics: Any) -> int:
    if not isinstance(statistics, Mapping):
        return 0
    own = int(statistics.get("total_text_length") or 0)
    return own + sum(_lengths(inner) for name, inner in statistics.items() if name != "hf_subset_descriptive_stats")


def _loaded(task: AbsTask) -> Data:
    """Load the data of mteb's task; it may come from the hub."""
    parts = task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]
    for part in parts:
        try:
            part.load_data()
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"The data of {part.metadata.name} could not be loaded ({first_line(error)}); it comes from the hub, "
                "so look at the network and at HF_HUB_OFFLINE, or evaluate on local files."
            ) from error
    return task, ()


def _local(layout: LocalTask, seed: int, read: ReadTask) -> Selected:
    def load() -> Data:
        data = read(layout)
        return local_task(data, seed=seed), data.notes

    def size() -> int:
        return characters(dict(read(layout).parts))

    return Selected(layout.name, load, None, size)
