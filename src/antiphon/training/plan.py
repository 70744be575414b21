"""What a recipe will cost before anybody pays for it: steps, tokens, FLOPs, memory and hours on a named card.

The counts of floating point operations are exact for the matrix products; memory and hours are estimates, the hours by
an assumed share of the card's peak (`plan.utilization`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from antiphon.data.mixtures import SetPlan
from antiphon.errors import ConfigError
from antiphon.training.dataset import Library
from antiphon.training.published_shapes import Shape, shape_of
from antiphon.training.recipe import Recipe, Stage
from antiphon.training.workload import Workload, workload

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
OPTIMIZER_BYTES = 8
"""Two moments of AdamW in fp32 for each trained weight."""
ACTIVATION_BYTES = 34
"""Bytes of activations that a layer keeps for each token and unit of width, 16-bit (Korthikanti et al., 2022)."""


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


@dataclass(frozen=True)
class Plan:
    """What a run costs."""

    name: str
    base: str
    shape: Shape
    gpu: str
    gpus: int
    utilization: float
    stages: tuple[StagePlan, ...]

    @property
    def hours(self) -> float:
        """Hours of all stages together."""
        return sum(stage.hours for stage in self.stages)


def plan(recipe: Recipe) -> Plan:
    """Return what the run costs; ConfigError for a card that is not in the table."""
    card = recipe.plan.gpu
    if card not in CARDS:
        raise ConfigError(f"plan.gpu is {card!r}; take one of {', '.join(CARDS)}.")
    shape = shape_of(recipe.model.base)
    library = Library(recipe)
    stages = tuple(_stage(recipe, stage, shape, workload(library, stage)) for stage in recipe.stage)
    return Plan(recipe.name, recipe.model.base, shape, card, recipe.plan.gpus, recipe.plan.utilization, stages)


def _stage(recipe: Recipe, stage: Stage, shape: Shape, work: Workload) -> StagePlan:
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


def row_flops(stage: Stage, shape: Shape, work: Workload) -> float:
    """Return the floating point operations of one row in one step, forward and backward."""
    encode = work.texts * forward_flops(shape, work.tokens_a_text)
    decode = vocabulary = 0.0
    if stage.loss == "reconstruction":
        decode = 2 * forward_flops(shape, work.content)
        vocabulary = 2 * 2 * shape.vocabulary * shape.width * work.content
    elif stage.loss == "mntp":
        vocabulary = 2 * shape.vocabulary * shape.width * work.content * 0.2
    # forward, and backward to activations and, unless they are frozen, to weights; the head's logits the same
    passes = 2.0 if stage.lora is not None else 3.0
    again = float(stage.gradient_checkpointing) + float(bool(stage.settings.get("mini_batch_size")))
    return (passes + again) * (encode + decode) + 3.0 * vocabulary


def forward_flops(shape: Shape, tokens: float) -> float:
    """Return the floating point operations of one text's forward pass: weights, then causal attention."""
    attention = 2 * tokens * tokens * shape.heads * shape.head_width * shape.layers
    return 2 * shape.body * tokens + attention


def _memory(recipe: Recipe, stage: Stage, shape: Shape, work: Workload) -> float:
    """Return an estimate of the bytes on one card: weights, gradients, optimizer and activations."""
    width = BYTES[recipe.model.dtype]
    trained = float(shape.parameters)
    if stage.lora is not None:
        attention = 4 * shape.width + 2 * shape.head_width * (shape.heads + shape.key_value_heads)
        trained = stage.lora.rank * shape.layers * (attention + 3 * (shape.width + shape.intermediate))
    fixed = shape.parameters * width + trained * (4 + OPTIMIZER_BYTES)
    device = stage.device_batch_size or max(1, stage.batch_size // recipe.plan.gpus)
    cached = stage.settings.get("mini_batch_size")
    texts = cached if cached else device * work.texts
    tokens = float(texts) * work.tokens_a_text
    layer = ACTIVATION_BYTES * shape.width * tokens
    kept = 2 * shape.width * tokens * shape.layers + layer if stage.gradient_checkpointing else layer * shape.layers
    return fixed + kept
