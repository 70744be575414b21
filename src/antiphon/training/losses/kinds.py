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
    [SentenceTransformer, SentenceTransformerTrainingArguments, Any], SentenceTransformerDataCollator | None
]


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
