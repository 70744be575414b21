"""Masked next token prediction: the training that lets a causal model live with bidirectional attention.

LLM2Vec (arXiv 2404.05961, section 2.2): some tokens of a text are masked, attention sees both ways, and masked token i
is predicted from the state at position i - 1, where a causal model has always predicted it.
Shapes: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from antiphon.errors import ConfigError
from antiphon.training.losses.collating import collator_of
from antiphon.training.losses.head import embedding_weight
from antiphon.training.losses.next_token import NextTokenLoss, NextTokenSettings
from antiphon.training.losses.plain_texts import IGNORED, PlainTexts

TARGETS = "masked_targets"


@dataclass(frozen=True, kw_only=True)
class MaskingSettings:
    """What is masked; the defaults are LLM2Vec's for Llama (its Mistral: share 0.8, style "all")."""

    share: float = 0.2
    """Probability that a token is to be predicted."""
    style: Literal["bert", "all"] = "bert"
    """Of the tokens to be predicted, "all" masks every one; "bert" masks 80 %, puts a random token in place of 10 %
    and leaves 10 % as they are."""
    token: str = "_"
    """What stands for a mask: causal vocabularies have none of their own."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}; a probability above 0 and at most 1 is wanted.")
        if self.style not in ("bert", "all"):
            raise ConfigError(f"style is {self.style!r}; take 'bert' or 'all'.")


def masking_collator(
    model: SentenceTransformer,
    settings: MaskingSettings | None = None,
    arguments: SentenceTransformerTrainingArguments | None = None,
) -> SentenceTransformerDataCollator:
    """Return the trainer's `data_collator` for masked next token prediction.

    Raises ConfigError where the mask is no single token of the model's.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import masking_collator
        >>> model = antiphon.build("nano", bidirectional=True)
        >>> batch = masking_collator(model)([{"text": "sort a list"}])
        >>> batch["text_masked_targets"].shape == batch["text_input_ids"].shape
        True
    """
    return collator_of(MaskingPreprocessor(model, settings or MaskingSettings()), arguments)


class MaskingPreprocessor:
    """A `preprocess` that gives plain texts, BOS and EOS around them, with masks; prompts and tasks are passed over.

    Masks depend on torch's seed and the batch alone: batches are prepared ahead of the step that reads them, so a
    generator that goes on from batch to batch would stand elsewhere in a resumed run.
    """

    def __init__(self, model: SentenceTransformer, settings: MaskingSettings) -> None:
        self.settings = settings
        self.texts = PlainTexts(model)
        self.vocabulary = len(embedding_weight(model[0]))
        mask = self.texts.pieces.frame(settings.token, first=False)
        if len(mask) != 1:
            raise ConfigError(
                f"The mask {settings.token!r} is {len(mask)} tokens to this model; take a string that is one."
            )
        self.mask = mask[0]

    def __call__(
        self, inputs: Sequence[object], prompt: str | None = None, task: str | None = None, **options: Any
    ) -> dict[str, torch.Tensor]:
        """Return of texts, or of rows of token ids, `input_ids`, `attention_mask` and `masked_targets`, (B, T).

        Targets are -100 where none is.
        """
        ids_BT, mask_BT, content_BT = self.texts.read(inputs)
        generator = _generator_of(ids_BT)
        chosen_BT = content_BT & (torch.rand(ids_BT.shape, generator=generator) < self.settings.share)
        return {
            "input_ids": self._masked(ids_BT, chosen_BT, generator),
            "attention_mask": mask_BT,
            TARGETS: ids_BT.masked_fill(~chosen_BT, IGNORED),
        }

    def _masked(self, ids_BT: torch.Tensor, chosen_BT: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.settings.style == "all":
            return ids_BT.masked_fill(chosen_BT, self.mask)
        dice_BT = torch.rand(ids_BT.shape, generator=generator)
        replaced_BT = ids_BT.masked_fill(chosen_BT & (dice_BT < 0.8), self.mask)
        noise_BT = torch.randint(self.vocabulary, ids_BT.shape, generator=generator)
        return torch.where(chosen_BT & (dice_BT >= 0.9), noise_BT, replaced_BT)


def _generator_of(ids_BT: torch.Tensor) -> torch.Generator:
    digest = hashlib.blake2b(ids_BT.numpy().tobytes(), digest_size=8, salt=torch.initial_seed().to_bytes(16, "big"))
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "big", signed=True))


@dataclass(frozen=True, kw_only=True)
class MaskedNextTokenSettings(NextTokenSettings, MaskingSettings):
    """What is masked and how the loss is computed."""


class MaskedNextTokenLoss(NextTokenLoss):
    """Cross-entropy of each masked token from the state before it, a mean over the masked tokens of the first column.

    The column needs masks: `data_collator=masking_collator(model)`. Raises ConfigError for a causal model.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import MaskedNextTokenLoss, masking_collator
        >>> model = antiphon.build("nano", bidirectional=True)
        >>> loss, collator = MaskedNextTokenLoss(model), masking_collator(model)  # the trainer takes both
        >>> sorted(collator([{"text": "sort a list"}]))
        ['text_attention_mask', 'text_input_ids', 'text_masked_targets']
    """

    targets: ClassVar[str] = TARGETS
    collator: ClassVar[str] = "masking_collator"

    def __init__(self, model: SentenceTransformer, settings: MaskedNextTokenSettings | None = None) -> None:
        super().__init__(model, settings or MaskedNextTokenSettings())

    def check_attention(self, *, bidirectional: bool) -> None:
        """Raise ConfigError for a causal model."""
        if not bidirectional:
            raise ConfigError(
                "Masked next token prediction is for bidirectional attention and this model is causal; "
                "build it with bidirectional=True."
            )
