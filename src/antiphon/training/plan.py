"""What a recipe will cost before anybody pays for it: steps, tokens, FLOPs, memory and hours on a named card.

The counts of floating point operations are exact for the matrix products; memory and hours are estimates, the hours by
an assumed share of the card's peak (`plan.utilization`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from antiphon import compat
from antiphon.data.mixtures import SetPlan
from antiphon.data.tabular import ResultTable, Tabular
from antiphon.errors import ConfigError
from antiphon.model.flops import DecoderShape, forward_flops, shape_of, training_memory, vocabulary_flops
from antiphon.model.gguf import plain_folder
from antiphon.training.dataset import Library
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Stage
from antiphon.training.stage import loss_kind, settings_of
from antiphon.training.workload import Workload, workload

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}


@dataclass(frozen=True)
class Card:
    """A GPU: its dense bf16 peak in TFLOP/s and its memory in GiB, from its maker's data sheet."""

    peak: float
    memory: float


CARDS: Mapping[str, Card] = {
    "A100-40": Card(312, 40),
    "A100": Card(312, 80),
    "H100": Card(989, 80),
    "H200": Card(989, 141),
    "L4": Card(121, 24),
    "L40S": Card(362, 48),
    "RTX4090": Card(165, 24),
}


@dataclass(frozen=True)
class StagePlan:
    """What one stage costs."""

    name: str
    loss: str
    steps: int
    batch_size: int
    texts: int
    """Texts in a row."""
    tokens_a_text: float
    measured: bool
    """Whether the tokens were counted on the data; else they are the longest a text can have."""
    sets: tuple[SetPlan, ...]
    flops: float
    memory: float
    """Bytes on one card."""
    hours: float

    @property
    def tokens(self) -> float:
        """Tokens that are encoded in the whole stage."""
        return self.steps * self.batch_size * self.texts * self.tokens_a_text

    def cells(self) -> dict[str, str]:
        """Return its figures in words, by the names of their columns."""
        return {
            "stage": self.name,
            "loss": self.loss,
            "steps": f"{self.steps:,}",
            "batch": f"{self.batch_size:,}",
            "tokens/text": f"{self.tokens_a_text:,.0f}{'' if self.measured else ' at most'}",
            "tokens": f"{self.tokens:.2e}",
            "FLOPs": f"{self.flops:.2e}",
            "GiB a card": f"{self.memory / 2**30:,.1f}",
            "hours": f"{self.hours:,.2f}",
        }


@dataclass(frozen=True, repr=False)
class Plan(Tabular):
    """What a run costs."""

    name: str
    base: str
    shape: DecoderShape
    gpu: str
    gpus: int
    utilization: float
    stages: tuple[StagePlan, ...]

    @property
    def hours(self) -> float:
        """Hours of all stages together."""
        return sum(stage.hours for stage in self.stages)

    def tables(self) -> list[ResultTable]:
        """Return the tables of stages and of their sets."""
        columns = ("stage", "loss", "steps", "batch", "tokens/text", "FLOPs", "GiB a card", "hours")
        stages = [[stage.cells()[name] for name in columns] for stage in self.stages]
        sets = [
            (one.name, stage.name, f"{one.rows:,}", f"{one.source_rows:,}", f"{one.batches:,}")
            for stage in self.stages
            for one in stage.sets
        ]
        caption = f"{self.name}: {self.base}; hours on {self.gpus} x {self.gpu} at {self.utilization:.0%} of its peak"
        found = [ResultTable(caption, columns, stages)]
        if sets:
            found.append(ResultTable("Sets", ("set", "stage", "rows", "of", "batches an epoch"), sets))
        return found


def plan(recipe: Recipe) -> Plan:
    """Return what the run costs; ConfigError for a card that is not in the table."""
    card = recipe.plan.gpu
    if card not in CARDS:
        raise ConfigError(f"plan.gpu is {card!r}; take one of {', '.join(CARDS)}.")
    if any(stage.lora is not None for stage in recipe.stage):
        compat.check_lora()
    with plain_folder(recipe.model.base) as plain:  # a GGUF file's configuration and tokenizer
        laid_down = recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": plain.path})})
        shape = shape_of(plain.path)
        library = Library(laid_down)
        stages = tuple(_stage(laid_down, stage, shape, workload(library, stage)) for stage in recipe.stage)
    return Plan(recipe.name, recipe.model.base, shape, card, recipe.plan.gpus, recipe.plan.utilization, stages)


def _stage(recipe: Recipe, stage: Stage, shape: DecoderShape, work: Workload) -> StagePlan:
    flops = work.steps * stage.batch_size * row_flops(stage, shape, work)
    card = CARDS[recipe.plan.gpu]
    speed = card.peak * 1e12 * recipe.plan.utilization * recipe.plan.gpus
    return StagePlan(
        name=stage.name,
        loss=stage.loss,
        steps=work.steps,
        batch_size=stage.batch_size,
        texts=work.texts,
        tokens_a_text=work.tokens_a_text,
        measured=work.measured,
        sets=work.sets,
        flops=flops,
        memory=_memory(recipe, stage, shape, work),
        hours=flops / speed / 3600,
    )


def row_flops(stage: Stage, shape: DecoderShape, work: Workload) -> float:
    """Return the floating point operations of one row in one step, forward and backward."""
    cost = loss_kind(stage).cost(settings_of(stage))
    layers = work.texts * forward_flops(shape, work.tokens_a_text)
    layers += cost.decoded_texts * forward_flops(shape, work.content)
    # forward, and backward to activations and, unless they are frozen, to weights; the head's logits the same
    passes = 2.0 if stage.lora is not None else 3.0
    again = float(stage.gradient_checkpointing) + float(cost.cached)
    return (passes + again) * layers + 3.0 * vocabulary_flops(shape, cost.projected_texts * work.content)


def _memory(recipe: Recipe, stage: Stage, shape: DecoderShape, work: Workload) -> float:
    """Return an estimate of the bytes on one card."""
    cost = loss_kind(stage).cost(settings_of(stage))
    rows = stage.device_batch_size or max(1, stage.batch_size // recipe.plan.gpus)
    tokens = rows * (work.texts * work.tokens_a_text + cost.decoded_texts * work.content)
    if cost.texts_at_once is not None:
        tokens = min(tokens, cost.texts_at_once * work.tokens_a_text)
    if cost.tokens_at_once is not None:
        tokens = min(tokens, max(cost.tokens_at_once, work.tokens_a_text))
    pure = stage.precision == "bf16-pure"
    return training_memory(
        shape,
        tokens,
        # gradients and moments of bf16 weights take half; adapters stay in float32
        trained=shape.parameters / (1 + pure) if stage.lora is None else shape.adapter_parameters(stage.lora.rank),
        weight_bytes=BYTES["bfloat16" if pure else recipe.model.dtype],
        gradient_checkpointing=stage.gradient_checkpointing,
    )
