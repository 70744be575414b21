"""The stages of a run, one after the other, each recorded when it begins and when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from antiphon.data.processes import processes
from antiphon.data.progress_bar import telling
from antiphon.errors import CheckpointError
from antiphon.files import HeldFolder
from antiphon.training import record
from antiphon.training.data_digests import check_rows, check_sources, source_digests
from antiphon.training.dataset import Library
from antiphon.training.finishing import remove_checkpoints, show_at_top
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Stage
from antiphon.training.record import RunRecord
from antiphon.training.stage import Place, run_stage


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A run that is being trained, in a folder that this process holds."""

    recipe: Recipe
    folder: Path
    resume: bool
    accept: bool
    """Whether data may have changed since the run began with them."""
    tell: Callable[[str], None]
    progress: bool | None
    """Whether a bar of the steps is shown; None shows it in interactive use."""
    place: HeldFolder | None
    """The folder as it is held; in processes beside the main one there is none."""

    def train(self, run: RunRecord, stages: Sequence[Stage]) -> None:
        """Train those of the stages that are not finished.

        Raises DataError where their data have changed since the run began with them.
        """
        ahead = [stage for stage in stages if not self._is_finished(run, stage)]
        for stage in stages:
            if stage not in ahead:
                self.tell(f"stage {stage.name}: finished before")
                self._tidy(stage)
        if not ahead:
            return
        sources = source_digests(self.recipe, ahead)
        changed = check_sources(run.sources, sources, self.folder, accept=self.accept) if self.resume else []
        count = processes().num_processes
        run = record.started(run, ahead[0].name, sources=sources, changed=changed, processes=count)
        self._write(run)
        library = Library(self.recipe)
        for stage in ahead:
            run = self._train_one(run, library, stage)

    def _train_one(self, run: RunRecord, library: Library, stage: Stage) -> RunRecord:
        place = place_of(self.recipe, stage, self.folder)
        self.tell(f"stage {stage.name}: {stage.loss} from {place.base}")
        current = run

        def begin(rows: list[dict[str, Any]]) -> None:
            nonlocal current
            before = run.begun.get(stage.name, []) if self.resume else []
            changed = check_rows(before, rows, stage.name, accept=self.accept)
            last = {**run.starts[-1], "changed_data": [*run.starts[-1]["changed_data"], *changed]}
            current = replace(run, begun={**run.begun, stage.name: rows}, starts=[*run.starts[:-1], last])
            self._write(current)

        with telling(stage.name, self.progress, unit="steps") as step:
            done, written = run_stage(library, stage, place, resume=self.resume, begin=begin, tell=self.tell, step=step)
        current = replace(current, stages=[*(before for before in current.stages if before.name != stage.name), done])
        if self.place is not None:
            show_at_top(self.place, current, place.model, written)
        self._write(current)
        self._tidy(stage)
        self.tell(f"stage {stage.name}: {done.steps} steps in {done.seconds:,.0f} s, model in {place.model}")
        return current

    def _tidy(self, stage: Stage) -> None:
        """Remove what a finished stage needs no more."""
        if processes().is_main_process and not stage.keep_checkpoints:
            remove_checkpoints(place_of(self.recipe, stage, self.folder).checkpoints)

    def _is_finished(self, run: RunRecord, stage: Stage) -> bool:
        """Return whether a stage is to be passed over; CheckpointError where it is finished and not to be resumed."""
        model = self.folder / _inside(self.recipe, stage) / "model"
        finished = model.exists() and any(done.name == stage.name for done in run.stages)
        if finished and not self.resume:
            raise CheckpointError(
                f"Stage {stage.name!r} of the run in {self.folder} is finished; go on with it by --resume, or set out "
                "to another folder. Nothing was written."
            )
        return finished

    def _write(self, run: RunRecord) -> None:
        if processes().is_main_process:
            record.write(run, self.folder)
        processes().wait_for_everyone()


def _inside(recipe: Recipe, stage: Stage) -> str:
    """Return a stage's folder, seen from the run's."""
    number = [one.name for one in recipe.stage].index(stage.name)
    return f"stages/{number + 1}-{stage.name}"


def place_of(recipe: Recipe, stage: Stage, folder: Path) -> Place:
    """Return where a stage starts and where it goes.

    Raises CheckpointError where the stage before it has left no model.
    """
    number = [one.name for one in recipe.stage].index(stage.name)
    own = folder / _inside(recipe, stage)
    if number == 0:
        return Place(base=recipe.model.base, run=folder, folder=own)
    before = recipe.stage[number - 1]
    base = folder / _inside(recipe, before) / "model"
    if not (base / "modules.json").exists():
        raise CheckpointError(
            f"Stage {stage.name!r} starts from {base}, which is not there; train {before.name!r} first."
        )
    return Place(base=str(base), run=folder, folder=own)
