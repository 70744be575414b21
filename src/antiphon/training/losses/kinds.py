"""What a row of LOSSES is: a loss under a name, with its settings and the data collator that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn

Build = Callable[[SentenceTransformer, Any], nn.Module]
Collate = Callable[
    [SentenceTransformer, SentenceTransformerTrainingArguments | None, Any], SentenceTransformerDataCollator | None
]


@dataclass(frozen=True)
class LossCost:
    """What a loss asks of a row beside encoding its texts, as `--plan` counts it."""

    decoded_texts: float = 0.0
    """Texts that are decoded behind a vector, each a pass of its own over its content."""
    projected_texts: float = 0.0
    """Texts whose content goes through the vocabulary; a share of one where some of the tokens do."""
    cached: bool = False
    """Whether each text goes forward twice (gradient cache)."""
    texts_at_once: int | None = None
    """Texts whose activations are kept at once at most; None is the whole batch of a device."""
    tokens_at_once: int | None = None
    """The same in tokens, which goes before."""


@dataclass(frozen=True)
class LossKind:
    """A loss that a recipe can name."""

    name: str
    settings: type
    """A frozen dataclass with a default for every field; what a recipe may set."""
    build: Build
    """Makes the loss from a model and its settings; the model may get adapters before, never behind."""
    collator: Collate
    """Makes the trainer's data collator from model, arguments and settings; None means sentence-transformers' own."""
    cost: Callable[[Any], LossCost]
    """What a row costs under these settings."""
    texts: int | None = None
    """Texts of a row that it encodes; None for as many as the data has columns."""
    blocks: bool = False
    """Whether it reads rows of token ids as well as texts (`data.block`)."""
