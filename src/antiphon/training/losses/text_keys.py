"""A number for each text of a batch, so that a loss can know identical texts on whatever process they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from antiphon.text.tokens import check_texts
from antiphon.training.losses.collating import collator_of

TEXT_KEY = "text_key"
"""Feature of a column beside the encoder's: the numbers (B) of its texts."""


def contrastive_collator(
    model: SentenceTransformer, arguments: SentenceTransformerTrainingArguments | None = None
) -> SentenceTransformerDataCollator:
    """Return the trainer's `data_collator` for the contrastive loss: each text also gets a key, `{column}_text_key`.

    Texts that differ only in the white space around them have the same key.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import contrastive_collator
        >>> batch = contrastive_collator(antiphon.build("nano"))([{"query": "sort a list"}, {"query": "sort a list "}])
        >>> len(set(batch["query_text_key"].tolist()))
        1
    """
    return collator_of(KeyPreprocessor(model), arguments)


class KeyPreprocessor:
    """The model's `preprocess`, with the key of each text added."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model

    def __call__(
        self, inputs: Sequence[str], prompt: str | None = None, task: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the features of one column."""
        features = self.model.preprocess(inputs, prompt=prompt, task=task, **options)
        return {**features, TEXT_KEY: torch.tensor([key_of(text) for text in check_texts(inputs)], dtype=torch.long)}


def key_of(text: str) -> int:
    """Return 64 bits that stand for a text."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
