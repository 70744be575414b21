"""Recipes: one TOML file is one run, a list of stages. Strict: an unknown key is an error that names its neighbour.

What a stage's loss takes is checked against the settings of that loss, and a data set's table against those of pairs,
so that a setting is defined in one place.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from antiphon.data.settings import apply, parse
from antiphon.errors import ConfigError, among
from antiphon.model.adapters import Lora
from antiphon.training.recipe_tables import (
    NAME,
    TABLE,
    Budget,
    Data,
    Evaluation,
    Model,
    OverlapTable,
    Stage,
    Strict,
    TemplateTable,
)


class Recipe(Strict):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The run's name, and that of its folder."""
    about: str = ""
    """A line for people."""
    seed: int = 42
    """Of weights that are made, data order, dropout and masks."""
    out: str | None = None
    """The run's folder; runs/NAME in the working folder without it."""
    strict: bool = False
    """Whether data of which anything would be passed over are refused, rather than counted in run.json."""
    report_to: tuple[str, ...] = ()
    """transformers' names of trackers: tensorboard, wandb."""
    model: Model
    """Table [model]."""
    data: Data | None = None
    """Table [data], for the stages that have none of their own."""
    stage: tuple[Stage, ...] = Field(min_length=1)
    """Tables [[stage]], one after the other."""
    plan: Budget = Budget()
    """Table [plan]."""
    folder: str = Field(default=".", exclude=True)
    """The folder of the recipe's file."""

    @model_validator(mode="after")
    def _stages(self) -> Self:
        names = [stage.name for stage in self.stage]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need names of their own, and these are {', '.join(names)}")
        for stage in self.stage[:-1]:
            if stage.adapter == "keep":
                raise ValueError(f"stage {stage.name!r} keeps its adapter, and the next one needs the whole model")
        for stage in self.stage:
            if stage.data is None and self.data is None:
                raise ValueError(f"stage {stage.name!r} has no data and the run has none")
        return self

    def data_of(self, stage: Stage) -> Data:
        """Return the stage's data, the run's own where it names none."""
        data = stage.data or self.data
        assert data is not None  # the validator's promise
        return data


def read(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    overrides: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> Recipe:
    """Read a recipe from a TOML file or a mapping, with a variant of it and single settings replaced.

    A variant is a table [variant.NAME] of dotted names and values; so are `overrides`: `stage.one.steps` is that of
    stage "one", `stage.*.steps` or plain `steps` that of every stage, `model.base` the base.

    Raises ConfigError for what cannot be read, does not exist, or is not what its table takes.
    """
    if isinstance(recipe, Recipe):
        folder, where = recipe.folder, recipe.name
        table = recipe.model_dump(exclude_none=True)
    elif isinstance(recipe, Mapping):
        folder, where, table = ".", "the recipe", parse(recipe)
    else:
        folder, where, table = str(Path(recipe).parent), str(recipe), read_toml(recipe)
    variants = table.pop("variant", {})
    default = table.pop("default_variant", None)
    chosen = variant or default
    if chosen is not None:
        if chosen not in variants:
            raise ConfigError(f"{where} has no variant {chosen!r}; {among(chosen, variants)}")
        apply(table, variants[chosen], f"{where}, variant {chosen!r}", tables=Recipe.model_fields)
    apply(table, overrides or {}, "an override", tables=Recipe.model_fields)
    try:
        return Recipe.model_validate({**table, "folder": folder})
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_sentence(entry) for entry in error.errors())}.") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file; ConfigError where it is not there or no TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no recipe {path}; name an existing .toml file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}.") from error


def _sentence(entry: Mapping[str, Any]) -> str:
    """Return what pydantic found, as part of a sentence."""
    *place, last = entry["loc"] or ("",)
    where = ".".join(str(part) for part in entry["loc"] if part not in (NAME, TABLE))
    if entry["type"] == "extra_forbidden":
        fields = _fields_at(place)
        return f"{where} is unknown; {among(str(last), fields)}"
    if entry["type"] == "missing":
        return f"{where} is missing"
    message = str(entry["msg"]).removeprefix("Value error, ")
    got = "" if entry["type"] == "value_error" else f" (it is {entry['input']!r:.80})"
    return f"{where}: {message}{got}" if where else message


def _fields_at(place: list[Any]) -> list[str]:
    """Return the names that the table at this place takes."""
    tables: dict[str, type[BaseModel]] = {
        "model": Model, TABLE: TemplateTable, "data": Data, "stage": Stage, "lora": Lora, "evaluation": Evaluation,
        "plan": Budget, "overlap": OverlapTable,
    }  # fmt: skip
    names = [part for part in place if isinstance(part, str)]
    return list((tables[names[-1]] if names else Recipe).model_fields)
