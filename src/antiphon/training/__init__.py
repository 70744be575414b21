"""`train(recipe)`: the stages of a recipe, one after the other, each from the saved and reloaded folder of the last.

A run's folder is that of the finished model, with its card; run.json is its record, and below `stages/` lies what came
of every stage. It is never written over: a run that stands there is resumed, or another folder is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from antiphon import compat
from antiphon.data.processes import processes
from antiphon.errors import CheckpointError, ConfigError
from antiphon.files import held, is_free
from antiphon.model.checkpoint import RUN
from antiphon.model.gguf import is_gguf
from antiphon.model.library_messages import hushed
from antiphon.training import record
from antiphon.training.plan import Plan, plan
from antiphon.training.recipe import Recipe, read
from antiphon.training.recipe_tables import Stage, with_defaults
from antiphon.training.run import RunningJob
from antiphon.training.stage import settings_of
from antiphon.training.trainer import batching
from antiphon.training.trial import try_run

__all__ = ["Plan", "plan", "train"]


@hushed(bars=False)
def train(  # noqa: PLR0913  (the public surface)
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    overrides: Mapping[str, Any] | None = None,
    variant: str | None = None,
    resume: bool = False,
    accept_changed_data: bool = False,
    first: str | None = None,
    until: str | None = None,
    on_step: Callable[[str], None] | None = None,
    progress: bool | None = None,
) -> Path:
    r"""Train what a recipe says and return the run's folder, the folder of the finished model.

    `overrides` are settings by dotted name (see `antiphon.training.recipe.read`), `first` and `until` name the stages
    to begin and to end with, and `resume` goes on with a run that stands in the folder: finished stages are kept, the
    one that died goes on from its last whole checkpoint to the same weights. Data that have changed since the run began
    with them are refused then, unless `accept_changed_data`, which the run's record says. Under torchrun or accelerate
    launch every process calls this. `progress` is a bar, by itself in interactive use only; `on_step` takes its place.

    Raises ConfigError, DataError and ModelError for what the recipe names and is not to be had, CheckpointError where
    a run stands in the folder and is not resumed or where another process trains there, TrainingError where the loss
    is not finite.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> import antiphon
        >>> rows = [{"query": f"sort by {key}", "positive": f"Return it ordered by {key}."} for key in "abcdefgh"]
        >>> _ = Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
        >>> run = antiphon.train({
        ...     "name": "small",
        ...     "out": "small",
        ...     "model": {"base": "nano", "max_tokens": 32},
        ...     "data": {"sets": [{"name": "pairs", "source": "pairs.jsonl"}]},
        ...     "stage": [{"name": "contrastive", "loss": "contrastive", "steps": 1, "batch_size": 4}],
        ... })
        >>> antiphon.load(run).encode_query(["sort by a"]).shape
        (1, 256)
    """
    read_recipe = read(recipe, overrides=overrides, variant=variant)
    state = processes()
    tell = on_step if on_step is not None and state.is_main_process else (lambda step: None)
    stages = _chosen(read_recipe, first, until)
    _check_stages(read_recipe, stages, state.num_processes)
    folder = Path(read_recipe.out or Path("runs") / read_recipe.name)
    with held(folder, "train", kind=CheckpointError) if state.is_main_process else nullcontext() as place:
        run = _opened(read_recipe, folder, resume=resume, begins=first is None, processes=state.num_processes)
        is_new = not (folder / RUN).exists()
        state.wait_for_everyone()  # all have seen the folder as it was
        if state.is_main_process and is_new:  # a run that is resumed has shown it
            try_run(read_recipe, stages, read_recipe.model.base, folder)
            record.write(run, folder)
        state.wait_for_everyone()
        job = RunningJob(
            recipe=read_recipe, folder=folder, resume=resume, accept=accept_changed_data, tell=tell, place=place,
            progress=progress if on_step is None else False,
        )  # fmt: skip
        job.train(run, stages)
    return folder


def _chosen(recipe: Recipe, first: str | None, until: str | None) -> list[Stage]:
    """Return the stages from `first` to `until`."""
    names = [stage.name for stage in recipe.stage]
    for name in (first, until):
        if name is not None and name not in names:
            raise ConfigError(f"The recipe has no stage {name!r}; take one of {', '.join(names)}.")
    begin = names.index(first) if first is not None else 0
    end = names.index(until) if until is not None else len(names) - 1
    if end < begin:
        raise ConfigError(f"Stage {until!r} comes before {first!r}, so there is nothing to train.")
    return list(recipe.stage[begin : end + 1])


def _check_stages(recipe: Recipe, stages: Sequence[Stage], processes: int) -> None:
    """Raise a ConfigError for settings that cannot be, and for an adapter whose base no reader would take."""
    for stage in stages:
        settings_of(stage)
        batching(stage, processes)
    if any(stage.lora is not None for stage in stages):
        compat.check_lora()
    last = stages[-1]
    if last.adapter == "keep" and len(recipe.stage) == 1 and is_gguf(recipe.model.base):
        raise ConfigError(
            f"stage.{last.name}.adapter is 'keep', and an adapter names its base, which readers do not take from "
            f"{recipe.model.base}; leave it out, so that the whole model is written."
        )


def _opened(recipe: Recipe, folder: Path, *, resume: bool, begins: bool, processes: int) -> record.RunRecord:
    """Return the record of the run in a folder, a new one where the folder is new."""
    content = recipe.model_dump(exclude_none=True, mode="json")
    found = record.read(folder)
    if found is None:
        if not is_free(folder):
            raise CheckpointError(f"{folder} exists and holds no run; nothing was written. Set out to another folder.")
        if not begins:
            raise CheckpointError(f"There is no run in {folder} whose later stage could be trained; leave --from out.")
        return record.new(recipe.name, content, seed=recipe.seed, processes=processes)
    if not resume and begins:
        raise CheckpointError(
            f"A run stands in {folder}; go on with it by --resume, or set out to another folder. Nothing was written."
        )
    record.check_same(replace(found, recipe=with_defaults(Recipe, found.recipe)), content, folder)
    return found
