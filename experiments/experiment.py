"""One TOML file is one experiment: a recipe, arms that differ from it, seeds, and what all of them are scored on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from antiphon.data.settings import apply
from antiphon.errors import ConfigError, among
from antiphon.training.recipe import Recipe, read, read_toml
from antiphon.training.recipe_tables import Model, Strict

NAME = r"^[a-z0-9][a-z0-9-]*$"


class Evaluation(Strict):
    """What every arm is scored on."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """As `antiphon evaluate` takes them; probes count in no average."""
    instructions: dict[str, str] | None = None
    """By task, for models whose template has a place for one."""
    limit: int | None = None
    """Examples of a local task at most."""
    drop_overlap: bool = True
    """Whether training pairs that share a text with a task's examples are left out."""


class Arm(Strict):
    """One system: stages of the recipe with settings of its own."""

    about: str
    """A line for people."""
    stages: tuple[str, ...] = ()
    """Names of the recipe's stages, in the order they are trained; none leaves the base as it is."""
    settings: dict[str, Any] = {}
    """By dotted name, over the experiment's."""
    calibrate: str | None = None
    """A method of `antiphon.calibrate`, fitted on the standard library's docstrings when all is trained."""


class Contrast(Strict):
    """One more table: arms beside another one than the first, or several arms as the seeds of one system."""

    about: str
    """A line for people."""
    systems: dict[str, tuple[str, ...]] = Field(min_length=2)
    """Arms of each system, by its name; the first is what the others are measured against."""


class Quick(Strict):
    """What `--quick` replaces."""

    arms: tuple[str, ...] = ()
    """These alone; all without any."""
    settings: dict[str, Any] = {}
    seeds: tuple[int, ...] = (1,)
    tasks: tuple[str, ...] | None = None
    limit: int | None = None


class Experiment(Strict):
    """A question and the runs that answer it."""

    name: Annotated[str, Field(pattern=NAME)]
    question: str
    hours: float
    """Of one core, for all arms and seeds; measured where it was run, by the plan's operations where it was not."""
    seeds: tuple[int, ...] = (1, 2, 3)
    recipe: dict[str, Any]
    """A recipe's tables without name, seed and out."""
    evaluation: Evaluation
    arm: dict[Annotated[str, Field(pattern=NAME)], Arm] = Field(min_length=1)
    """The first is what the others are measured against."""
    contrast: dict[str, Contrast] = {}
    quick: Quick = Quick()

    @model_validator(mode="after")
    def _arms(self) -> Self:
        known = [stage.get("name") for stage in self.recipe.get("stage", [])]
        for name, arm in self.arm.items():
            for stage in arm.stages:
                if stage not in known:
                    raise ValueError(f"arm {name} names the stage {stage!r}; {among(stage, map(str, known))}")
        for name, contrast in self.contrast.items():
            for one in (arm for arms in contrast.systems.values() for arm in arms):
                if one not in self.arm:
                    raise ValueError(f"contrast {name} names the arm {one!r}; {among(one, self.arm)}")
        return self

    def recipe_of(self, arm: str, seed: int, *, out: Path, texts: Path | None) -> Recipe:
        """Return what one arm trains with one seed; pairs that share a text with `texts` are left out."""
        table = self._table(arm)
        stages = {stage["name"]: stage for stage in table["stage"]}
        table |= {"name": f"{arm}-{seed}", "seed": seed, "out": str(out)}
        table["stage"] = [stages[name] for name in self.arm[arm].stages]
        if texts is not None:
            table["data"]["overlap"] = {"texts": str(texts), "drop": True}
        return read(table)

    def model_of(self, arm: str) -> Model:
        """Return what an arm embeds with before it is trained."""
        return Model.model_validate(self._table(arm)["model"])

    def runs(self, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[str, int]]:
        """Return arm and seed of each run, those of one seed together; an arm that trains nothing has one seed."""
        for arm in arms:
            if arm not in self.arm:
                raise ConfigError(f"{self.name} has no arm {arm!r}; {among(arm, self.arm)}.")
        taken = tuple(seeds) or self.seeds
        return [
            (name, seed)
            for seed in taken
            for name, arm in self.arm.items()
            if (not arms or name in arms) and (arm.stages or seed == taken[0])
        ]

    def quickened(self) -> Experiment:
        """Return the experiment as `--quick` runs it."""
        chosen = self.quick.arms or tuple(self.arm)
        arms = {  # an arm's own settings first, as what stands later wins
            name: arm.model_copy(update={"settings": arm.settings | self.quick.settings})
            for name, arm in self.arm.items()
            if name in chosen
        }
        evaluation = self.evaluation.model_copy(
            update={
                "tasks": self.quick.tasks or self.evaluation.tasks,
                "limit": self.quick.limit or self.evaluation.limit,
            }
        )
        changed = {"arm": arms, "evaluation": evaluation, "seeds": self.quick.seeds}
        return self.model_copy(update={**changed, "name": f"{self.name}-quick"})

    def _table(self, arm: str) -> dict[str, Any]:
        table = copy.deepcopy(self.recipe)
        apply(table, self.arm[arm].settings, f"{self.name}, arm {arm}", tables=Recipe.model_fields)
        return table


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's file; ConfigError for what cannot be read or is unknown there."""
    table = read_toml(path)
    try:
        return Experiment.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_sentence(entry) for entry in error.errors())}.") from error


_TABLES: Mapping[str, type[BaseModel]] = {
    "evaluation": Evaluation,
    "arm": Arm,
    "contrast": Contrast,
    "quick": Quick,
}


def _sentence(entry: Mapping[str, Any]) -> str:
    where = ".".join(map(str, entry["loc"]))
    if entry["type"] == "extra_forbidden":
        table = _TABLES.get(str(entry["loc"][0]), Experiment) if len(entry["loc"]) > 1 else Experiment
        return f"{where} is unknown; {among(str(entry['loc'][-1]), table.model_fields)}"
    return f"{where}: {str(entry['msg']).removeprefix('Value error, ')}".removeprefix(": ")
