"""The tables of a recipe's file, one class each: model, data, stages and the machine that a plan is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from antiphon.model.adapters import Lora
from antiphon.modules import PoolingMode
from antiphon.text.template import DEFAULT, Template, named

Positive = Annotated[int, Field(ge=1)]


NAME, TABLE = "a name", "a table"
"""What a template can be; in the place of an error pydantic names which of the two was read."""


class Strict(BaseModel):
    """A table of a recipe: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def with_defaults(table: type[Strict], recorded: dict[str, Any]) -> dict[str, Any]:
    """Return a table that was recorded with the settings that came later, as they are by themselves."""
    try:
        return table.model_validate(recorded).model_dump(exclude_none=True, mode="json")
    except ValidationError:  # it has a setting that there no longer is, which is for the caller to tell
        return recorded


class TemplateTable(Strict):
    """A template spelled out, `template = { query = "...", document = "..." }`: the fields of `Template`."""

    name: str = "custom"
    """What `show` calls it."""
    query: str
    """With a {text} slot, [{text}] where it is pooled, {prompt} for the instruction."""
    document: str | None = None
    """The same for documents; the query's without it."""
    compute_matched: bool = False
    """Whether all copies share the tokens of one."""
    eos: bool = True
    """Whether EOS ends the sequence; without it the last token closes the pooled span."""
    alone: bool = False
    """Whether each piece is tokenised as if it began the sequence."""


class Model(Strict):
    """What `antiphon.build` makes of the base, in the words of `build`."""

    base: str
    """A hub id, a folder, "nano", or a saved embedder, whose shape is settled."""
    template: (
        Annotated[
            Annotated[str, Tag(NAME)] | Annotated[TemplateTable, Tag(TABLE)],
            Discriminator(lambda given: NAME if isinstance(given, str) else TABLE),
        ]
        | None
    ) = None
    """A template's name, a string with a {text} slot, or a table with a query and a document variant; `build`'s default
    without it."""
    eos: bool | None = None
    """Whether an EOS ends every sequence; the template's own word without it."""
    pooling: PoolingMode | None = None
    """"last", "mean" or "weighted_mean"."""
    max_tokens: int | None = None
    """Tokens of a sequence with one copy of the text."""
    bidirectional: bool | None = None
    """Whether tokens see later ones."""
    prompts: dict[str, str] = {}
    """Instructions by name: "query" and "document" are what the sides say by themselves, in training where a set has
    none of its own, and afterwards. Without them the instructions of the sets are saved."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Of the weights while they are trained; bf16 compute is a stage's `precision`."""
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the weights that the last stage writes; the base's own without it."""
    attention: str | None = None
    """transformers' name of an attention implementation, such as "flash_attention_2"; its own choice without it."""

    @property
    def template_spec(self) -> Template | None:
        """The template with its EOS settled, None where neither is said; ConfigError for one that is not to be had."""
        if self.template is None and self.eos is None:
            return None
        given = self.template
        template = Template(**given.model_dump()) if isinstance(given, TemplateTable) else named(given or DEFAULT)
        return template if self.eos is None else replace(template, eos=self.eos)


class OverlapTable(Strict):
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
    """A source of plain texts in place of pairs, for mntp, next_token and simcse."""
    field: str | None = None
    """The field of `texts` that holds the text."""
    block: Positive | None = None
    """Tokens of a row: texts are tokenised, joined in order and cut into blocks of so many, BOS of each text among
    them, as LLM2Vec's MNTP does (512); a text a row without it."""
    root: str | None = None
    """The folder that sources with relative paths are seen from; the working folder without it."""
    only: tuple[str, ...] = ()
    """Names of the sets to take; all without it."""
    limit: Positive | None = None
    """Rows of each set that are read at most."""
    sampled: bool | None = None
    """Whether the sources are sampled already, so that no set's ratio is applied (the released echo-data is, its
    mixture says so); false applies them, to the full sets; the mixture's own word without it."""
    overlap: OverlapTable | None = None
    """Texts that training may not hold; nothing is looked for without it."""

    @property
    def texts_source(self) -> str | None:
        """The source of plain texts as seen from `root`, None where there are pairs."""
        return self.texts if self.texts is None or self.root is None else str(Path(self.root) / self.texts)

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
    """A row of the losses: reconstruction, contrastive, mntp, next_token or simcse."""
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
    schedule_steps: Positive | None = None
    """Steps after which the schedule would end, where the stage stops before: a run that was planned longer and ended
    early; the stage's own steps without it."""
    schedule_epochs: Annotated[float, Field(gt=0)] | None = None
    """The same in passes over the data; one of the two."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW, on matrices."""
    optimizer: str = "adamw_torch"
    """transformers' name of an optimizer."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest norm of a step's gradient; 0 leaves it as it is."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again instead of kept: less memory, one more forward pass."""
    precision: Literal["float32", "bf16", "fp16", "bf16-pure"] = "float32"
    """In which passes compute (autocast); the weights have the model's dtype. "bf16-pure" trains weights and AdamW's
    moments that are themselves bf16, without autocast, as Anchor's and LLM2Vec's trainers do; LoRA's adapters stay in
    float32. Most updates are then smaller than a weight can tell: at 4e-5 8 % of the weights move in a step."""
    compile: bool = False
    """Whether each layer's forward and backward are compiled: faster steps after a minute of building, which later
    processes read back. Where that cannot be built, or is off from float32, layers run as they are, with a warning."""
    lora: Lora | None = None
    """All weights are trained without it."""
    adapter: Literal["merge", "keep"] | None = None
    """What becomes of LoRA's adapter: it is merged into the weights, or with "keep", in the last stage, written alone,
    beside the name of its base; `antiphon merge` makes the whole model of it."""
    evaluation: Evaluation | None = None
    """Tasks to look at while training; none without it."""
    save_every: Positive | None = None
    """Steps between two checkpoints; ten of them in a stage without it."""
    keep: Annotated[int, Field(ge=2)] = 2
    """Checkpoints kept while it runs: the one before the last is what a torn last one falls back to."""
    keep_checkpoints: bool | None = None
    """Whether they stay when the stage is finished; they are removed without it."""
    log_every: Positive = 10
    """Steps between two entries of the loss."""

    @model_validator(mode="after")
    def _a_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("a stage has steps or epochs, one of them")
        if self.adapter is not None and self.lora is None:
            raise ValueError("adapter says what becomes of LoRA's adapter, and the stage has no lora")
        if self.schedule_steps is not None and self.schedule_epochs is not None:
            raise ValueError("the schedule's end is schedule_steps or schedule_epochs, one of them")
        if self.schedule_steps is not None and self.steps is not None and self.schedule_steps < self.steps:
            raise ValueError(f"schedule_steps {self.schedule_steps} is less than steps {self.steps}: it would end at 0")
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
