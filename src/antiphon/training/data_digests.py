"""What a run's data were when it began with them, so that going on with others is a decision.

Files are known by their digests; rows that come from elsewhere (docstrings, the hub) by the fingerprint of what was
read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from antiphon.data.pairs import resolve
from antiphon.errors import DataError
from antiphon.files import digest
from antiphon.training.dataset import pair_settings
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Data, Stage

_REMEDY = (
    "put it back, train anew in another folder, or go on with --accept-changed-data, which run.json will say. "
    "Nothing was trained."
)
_NO_DATA = (".md",)


def source_digests(recipe: Recipe, stages: Sequence[Stage]) -> dict[str, str]:
    """Return the SHA-256 of every file that the stages read rows or evaluation tasks from, by its path."""
    paths = {path for stage in stages for path in _paths(recipe, stage)}
    return {str(file): digest(file) for path in sorted(paths) for file in _files(path)}


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files that are not what they were: other bytes, gone, or new beside files that were there."""
    folders = {str(Path(name).parent) for name in before}
    other = [name for name, known in now.items() if before.get(name, known) != known]
    gone = [name for name in before if name not in now and not Path(name).exists()]
    new = [name for name in now if name not in before and str(Path(name).parent) in folders]
    return sorted({*other, *gone, *new})


def check_sources(before: Mapping[str, str], now: Mapping[str, str], run: Path, *, accept: bool) -> list[str]:
    """Return the files that have changed since the run began with them; DataError unless that is accepted."""
    changed = changed_sources(before, now)
    if changed and not accept:
        more = f" and {len(changed) - 3} more files" if len(changed) > 3 else ""
        raise DataError(f"{', '.join(changed[:3])}{more} changed since the run in {run} began with it; {_REMEDY}")
    return changed


def check_rows(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], stage: str, *, accept: bool
) -> list[str]:
    """Return the sets whose rows are not those that the stage began with; DataError unless that is accepted."""
    known = {one["set"]: one["fingerprint"] for one in before}
    changed = [one["set"] for one in now if known.get(one["set"], one["fingerprint"]) != one["fingerprint"]]
    if changed and not accept:
        raise DataError(f"The rows of {', '.join(changed)} changed since stage {stage!r} began with them; {_REMEDY}")
    return changed


def _paths(recipe: Recipe, stage: Stage) -> Iterator[Path]:
    data = recipe.data_of(stage)
    named = [*_named(recipe, data)]
    if stage.evaluation is not None:
        named += stage.evaluation.tasks
        if isinstance(stage.evaluation.instructions, str):
            named.append(stage.evaluation.instructions)
    yield from (Path(name) for name in named if Path(name).exists())


def _named(recipe: Recipe, data: Data) -> Iterator[str]:
    if data.texts_source is not None:
        yield data.texts_source
    else:
        yield from (resolve(one.source, data.root) for one in pair_settings(recipe, data))
    if data.mixture is not None:
        yield str(Path(recipe.folder) / data.mixture)
    if data.overlap is not None:
        yield data.overlap.texts


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the files of a folder without hidden ones and notes."""
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not hidden and file.suffix.lower() not in _NO_DATA:
            yield file
