"""Causal language modelling: each token of a text from those before it, as the base was trained.

For a base that is to read texts of a domain before it learns to embed, and the control of a first stage of any other
kind: the same weights, steps and operations, without a vector. Shapes: B batch, T tokens, N tokens that are not
padding, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn

from antiphon.errors import ConfigError, DataError
from antiphon.model.causality import is_bidirectional
from antiphon.training.losses.collating import collator_of
from antiphon.training.losses.decoding import states
from antiphon.training.losses.head import HeadTraining, embedding_of, head_of, release_padding
from antiphon.training.losses.packer import Packer
from antiphon.training.losses.plain_texts import IGNORED, PlainTexts
from antiphon.training.losses.vocabulary import CHUNK, linear_cross_entropy

TARGETS = "next_token_targets"


def next_token_collator(
    model: SentenceTransformer, arguments: SentenceTransformerTrainingArguments | None = None
) -> SentenceTransformerDataCollator:
    """Return the trainer's `data_collator` for causal language modelling.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import next_token_collator
        >>> batch = next_token_collator(antiphon.build("nano"))([{"text": "sort a list"}])
        >>> batch["text_next_token_targets"].shape == batch["text_input_ids"].shape
        True
    """
    return collator_of(NextTokenPreprocessor(model), arguments)


class NextTokenPreprocessor:
    """A `preprocess` that gives plain texts, BOS and EOS around them; prompts and tasks are passed over."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.texts = PlainTexts(model)

    def __call__(
        self, inputs: Sequence[object], prompt: str | None = None, task: str | None = None, **options: Any
    ) -> dict[str, torch.Tensor]:
        """Return of texts, or of rows of token ids, `input_ids`, `attention_mask` and `next_token_targets`, (B, T).

        Targets are each token of the text itself, -100 where none is.
        """
        ids_BT, mask_BT, content_BT = self.texts.read(inputs)
        return {"input_ids": ids_BT, "attention_mask": mask_BT, TARGETS: ids_BT.masked_fill(~content_BT, IGNORED)}


@dataclass(frozen=True, kw_only=True)
class NextTokenSettings:
    """How the loss is computed."""

    head: HeadTraining = "trained"
    """Whether the vocabulary head learns."""
    chunk_size: int = CHUNK
    """Tokens whose logits exist at once; changes memory and time, never the loss."""
    packed: bool = True
    """Whether texts go through the model without padding between them, where it can; the loss is the same."""


class NextTokenLoss(nn.Module):
    """Cross-entropy of each token of a text from the state before it, a mean over all tokens of the first column.

    The column needs targets: `data_collator=next_token_collator(model)`. Raises ConfigError for a model with
    bidirectional attention, which reads what it has to predict.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import NextTokenLoss, next_token_collator
        >>> model = antiphon.build("nano")
        >>> loss, collator = NextTokenLoss(model), next_token_collator(model)  # the trainer takes both
        >>> sorted(collator([{"text": "sort a list"}]))
        ['text_attention_mask', 'text_input_ids', 'text_next_token_targets']
    """

    targets: ClassVar[str] = TARGETS
    """The feature that holds what is predicted."""
    collator: ClassVar[str] = "next_token_collator"

    def __init__(self, model: SentenceTransformer, settings: NextTokenSettings | None = None) -> None:
        super().__init__()
        self.model = model  # the trainer puts the wrapped model here
        self.settings = settings or NextTokenSettings()
        self.check_attention(bidirectional=is_bidirectional(model[0].model))
        release_padding(model)
        self.head = head_of(model, self.settings.head)
        self.packer = Packer.of(model) if self.settings.packed else None

    def check_attention(self, *, bidirectional: bool) -> None:
        """Raise ConfigError for a model with the other kind of attention."""
        if bidirectional:
            raise ConfigError(
                "Next token prediction is for causal attention and this model is bidirectional, so it would read what "
                "it has to predict; train it by mntp, or build it with bidirectional=False."
            )

    def forward(self, features: list[dict[str, Any]], labels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of one batch."""
        column = features[0]
        if self.targets not in column:
            raise DataError(
                f"A column came without {self.targets}; give the trainer data_collator={self.collator}(model)."
            )
        mask_BT = column["attention_mask"].bool()
        if self.packer is not None:
            hidden_ND = self.packer.tokens(self.model, column)
        else:
            embedded_BTD = embedding_of(self.head.module)(column["input_ids"])
            # causal=False overrules nothing: the attention is the one that the model was built with
            hidden_ND = states(self.model, embedded_BTD, column["attention_mask"], causal=False)[mask_BT]
        targets_N = column[self.targets][mask_BT]
        predicted = (targets_N != IGNORED).nonzero()[:, 0]  # never the first of a text, so the one before is its own
        return linear_cross_entropy(
            hidden_ND[predicted - 1] * self.head.scale,
            self.head.weight,
            targets_N[predicted],
            chunk_size=self.settings.chunk_size,
            softcap=self.head.softcap,
        )
