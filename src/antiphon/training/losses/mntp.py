"""Masked next token prediction: the training that lets a causal model live with bidirectional attention.

LLM2Vec (arXiv 2404.05961, section 2.2): some tokens of a text are masked, attention sees both ways, and masked token i
is predicted from the state at position i - 1, where a causal model has always predicted it.
Shapes: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn

from antiphon.errors import ConfigError, DataError
from antiphon.model.causality import is_bidirectional
from antiphon.text.tokens import check_texts
from antiphon.training.losses.collating import DEFAULT_MAX_TOKENS, collator_of, pieces_of, right_padded
from antiphon.training.losses.decoding import states
from antiphon.training.losses.head import HeadTraining, embedding_of, embedding_weight, head_of, release_padding
from antiphon.training.losses.packer import Packer
from antiphon.training.losses.vocabulary import CHUNK, linear_cross_entropy

TARGETS = "masked_targets"
IGNORED = -100


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
        self.pieces = pieces_of(model)
        self.most = model.max_seq_length or DEFAULT_MAX_TOKENS
        self.vocabulary = len(embedding_weight(model[0]))
        mask = self.pieces.frame(settings.token, first=False)
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
        ids_BT, mask_BT, content_BT = self._blocks(inputs) if _are_blocks(inputs) else self._texts(inputs)
        content_BT[:, 0] = False  # what stands first has no position before it to be predicted from
        generator = _generator_of(ids_BT)
        chosen_BT = content_BT & (torch.rand(ids_BT.shape, generator=generator) < self.settings.share)
        return {
            "input_ids": self._masked(ids_BT, chosen_BT, generator),
            "attention_mask": mask_BT,
            TARGETS: ids_BT.masked_fill(~chosen_BT, IGNORED),
        }

    def _texts(self, texts: Sequence[object]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids, mask and what may be masked, (B, T), of texts with BOS and EOS around them."""
        specials = self.pieces.specials
        before = [] if specials.bos is None else [specials.bos]
        longest = self.most - len(before) - 1
        rows = [row[:longest] for row in self.pieces.texts(check_texts(texts), first=True)]
        ids_BT, mask_BT = right_padded([[*before, *row, specials.closing] for row in rows])
        content_BT = torch.zeros_like(mask_BT, dtype=torch.bool)
        for number, row in enumerate(rows):
            content_BT[number, len(before) : len(before) + len(row)] = True
        return ids_BT, mask_BT, content_BT

    def _blocks(self, rows: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the same of rows of token ids: all of them text but the BOS between texts."""
        ids_BT, mask_BT = right_padded([row[: self.most] for row in rows])
        bos = self.pieces.specials.bos
        content_BT = mask_BT.bool() & (ids_BT != bos if bos is not None else torch.ones_like(mask_BT, dtype=torch.bool))
        return ids_BT, mask_BT, content_BT

    def _masked(self, ids_BT: torch.Tensor, chosen_BT: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.settings.style == "all":
            return ids_BT.masked_fill(chosen_BT, self.mask)
        dice_BT = torch.rand(ids_BT.shape, generator=generator)
        replaced_BT = ids_BT.masked_fill(chosen_BT & (dice_BT < 0.8), self.mask)
        noise_BT = torch.randint(self.vocabulary, ids_BT.shape, generator=generator)
        return torch.where(chosen_BT & (dice_BT >= 0.9), noise_BT, replaced_BT)


def _are_blocks(inputs: Sequence[object]) -> bool:
    return bool(inputs) and isinstance(inputs[0], list)


def _generator_of(ids_BT: torch.Tensor) -> torch.Generator:
    digest = hashlib.blake2b(ids_BT.numpy().tobytes(), digest_size=8, salt=torch.initial_seed().to_bytes(16, "big"))
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "big", signed=True))


@dataclass(frozen=True, kw_only=True)
class MaskedNextTokenSettings(MaskingSettings):
    """What is masked and how the loss is computed."""

    head: HeadTraining = "trained"
    """Whether the vocabulary head learns."""
    chunk_size: int = CHUNK
    """Tokens whose logits exist at once; changes memory and time, never the loss."""
    packed: bool = True
    """Whether texts go through the model without padding between them, where it can; the loss is the same."""


class MaskedNextTokenLoss(nn.Module):
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

    def __init__(self, model: SentenceTransformer, settings: MaskedNextTokenSettings | None = None) -> None:
        super().__init__()
        self.model = model  # the trainer puts the wrapped model here
        self.settings = settings or MaskedNextTokenSettings()
        if not is_bidirectional(model[0].model):
            raise ConfigError(
                "Masked next token prediction is for bidirectional attention and this model is causal; "
                "build it with bidirectional=True."
            )
        release_padding(model)
        self.head = head_of(model, self.settings.head)
        self.packer = Packer.of(model) if self.settings.packed else None

    def forward(self, features: list[dict[str, Any]], labels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of one batch."""
        column = features[0]
        if TARGETS not in column:
            raise DataError(f"A column came without {TARGETS}; give the trainer data_collator=masking_collator(model).")
        mask_BT = column["attention_mask"].bool()
        if self.packer is not None:
            hidden_ND = self.packer.tokens(self.model, column)
        else:
            embedded_BTD = embedding_of(self.head.module)(column["input_ids"])
            hidden_ND = states(self.model, embedded_BTD, column["attention_mask"], causal=False)[mask_BT]
        targets_N = column[TARGETS][mask_BT]
        predicted = (targets_N != IGNORED).nonzero()[:, 0]  # never the first of a text, so the one before is its own
        return linear_cross_entropy(
            hidden_ND[predicted - 1] * self.head.scale,
            self.head.weight,
            targets_N[predicted],
            chunk_size=self.settings.chunk_size,
            softcap=self.head.softcap,
        )
