"""Recipes: one TOML file is one run, a list of stages. Strict: an unknown key is an error that names its neighbour.

What a stage's loss takes is checked against the settings of that loss, and a data set's table against those of pairs,
so that a setting is defined in one place.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from antiphon.data.settings import apply, parse
from antiphon.errors import ConfigError
from antiphon.model.adapters import Lora

Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A table of a recipe: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Model(Strict):
    """What `antiphon.build` makes of the base, in the words of `build`."""

    base: str
    """A hub id, a folder, "nano", or a saved embedder, whose shape is settled."""
    template: str | None = None
    """A template's name or a string with a {text} slot; `build`'s default without it."""
    pooling: str | None = None
    """"last", "mean" or "weighted_mean"."""
    max_tokens: int | None = None
    """Tokens of a sequence with one copy of the text."""
    bidirectional: bool | None = None
    """Whether tokens see later ones."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Of the weights while they are trained and saved; bf16 compute is a stage's `precision`."""
    attention: str | None = None
    """transformers' name of an attention implementation, such as "flash_attention_2"; its own choice without it."""


class Overlap(Strict):
    """Texts that no training pair may hold."""

    texts: str
    """A file of texts, or a folder in BEIR layout."""
    near: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The share of shingles two texts have in common from which they count as near duplicates."""
    drop: bool = False
    """Whether such pairs are left out; they are reported either way."""


class Data(Strict):
    """Where the training rows come from: a mixture of pairs, or plain texts."""

    mixture: str | None = None
    """A TOML file with [[set]] tables, seen from the recipe's folder, which several recipes may share."""
    sets: tuple[dict[str, Any], ...] = ()
    """The same tables in the recipe itself."""
    texts: str | None = None
    """A source of plain texts in place of pairs, for mntp and simcse."""
    field: str | None = None
    """The field of `texts` that holds the text."""
    root: str | None = None
    """The folder that sources with relative paths are seen from; the working folder without it."""
    only: tuple[str, ...] = ()
    """Names of the sets to take; all without it."""
    limit: Positive | None = None
    """Rows of each set that are read at most."""
    sampled: bool | None = None
    """Whether the sources are sampled already, so that no set's ratio is applied (the released echo-data is, its
    mixture says so); false applies them, to the full sets; the mixture's own word without it."""
    overlap: Overlap | None = None
    """Texts that training may not hold; nothing is looked for without it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [
            name for name, value in (("mixture", self.mixture), ("sets", self.sets), ("texts", self.texts)) if value
        ]
        if len(kinds) != 1:
            given = " and ".join(kinds) or "none of them"
            raise ValueError(f"one of mixture, sets and texts is wanted, and {given} is given")
        return self


class Evaluation(Strict):
    """Tasks to look at while training."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of mteb's tasks, files or folders, as `antiphon evaluate` takes them."""
    instructions: str | dict[str, str] | None = None
    """By task; "own" for the model's own prompts, a JSON file, or the table itself."""
    limit: Positive | None = None
    """Examples of a task that are taken at most, the same ones each time."""
    every: Positive
    """Steps between two looks; a checkpoint is written at each."""
    best: bool = False
    """Whether the stage ends with the best checkpoint rather than the last."""
    patience: Positive | None = None
    """Looks without a better score after which training stops."""


class Stage(Strict):
    """One loss over some data for a number of steps."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """What folders, `--from`, `--until` and `--set stage.NAME.key` call it."""
    loss: str
    """A row of the losses: reconstruction, contrastive, mntp or simcse."""
    settings: dict[str, Any] = {}
    """Those of the loss."""
    data: Data | None = None
    """The run's own without it."""
    steps: Positive | None = None
    """Optimizer steps; steps or epochs, one of them."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the data, parts of one too."""
    max_tokens: Positive | None = None
    """The model's own, in this stage alone (SimCSE trains on short texts)."""
    batch_size: Positive = 32
    """Rows of a step over all devices together."""
    device_batch_size: Positive | None = None
    """Rows on one device at once; the rest of the batch follows by accumulation. An in-batch loss sees no negatives
    beyond them (use the loss's mini_batch_size for memory instead)."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """The highest rate of the schedule."""
    warmup_steps: Annotated[float, Field(ge=0)] = 0
    """A number of steps, or a share of them below 1."""
    schedule: str = "linear"
    """transformers' name of a learning rate schedule, such as "linear", "cosine" or "constant"."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW, on matrices."""
    optimizer: str = "adamw_torch"
    """transformers' name of an optimizer."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest norm of a step's gradient; 0 leaves it as it is."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again instead of kept: less memory, one more forward pass."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """In which passes compute (autocast); the weights have the model's dtype."""
    lora: Lora | None = None
    """All weights are trained without it."""
    evaluation: Evaluation | None = None
    """Tasks to look at while training; none without it."""
    save_every: Positive | None = None
    """Steps between two checkpoints; ten of them in a stage without it."""
    keep: Annotated[int, Field(ge=2)] = 2
    """Checkpoints kept: the one before the last is what a torn last one falls back to."""
    log_every: Positive = 10
    """Steps between two entries of the loss."""

    @model_validator(mode="after")
    def _a_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("a stage has steps or epochs, one of them")
        if self.device_batch_size is not None and self.batch_size % self.device_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of device_batch_size {self.device_batch_size}"
            )
        return self


class Budget(Strict):
    """The machine that `--plan` counts hours for."""

    gpu: str = "H100"
    """A card of the table in training/plan.py."""
    gpus: Positive = 1
    """Cards that share a batch."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """The share of the card's dense bf16 peak that training reaches: an assumption, not a measurement."""


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
            raise ConfigError(f"{where} has no variant {chosen!r}; {_among(chosen, variants)}")
        apply(table, variants[chosen], f"{where}, variant {chosen!r}")
    apply(table, overrides or {}, "an override")
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
    where = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        fields = _fields_at(place)
        return f"{where} is unknown; {_among(str(last), fields)}"
    if entry["type"] == "missing":
        return f"{where} is missing"
    message = str(entry["msg"]).removeprefix("Value error, ")
    got = "" if entry["type"] == "value_error" else f" (it is {entry['input']!r:.80})"
    return f"{where}: {message}{got}" if where else message


def _fields_at(place: list[Any]) -> list[str]:
    """Return the names that the table at this place takes."""
    tables: dict[str, type[BaseModel]] = {
        "model": Model, "data": Data, "stage": Stage, "lora": Lora, "evaluation": Evaluation, "plan": Budget,
        "overlap": Overlap,
    }  # fmt: skip
    names = [part for part in place if isinstance(part, str)]
    return list((tables[names[-1]] if names else Recipe).model_fields)


def _among(name: str, known: Mapping[str, Any] | list[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"take one of {', '.join(known) or 'none'}"
