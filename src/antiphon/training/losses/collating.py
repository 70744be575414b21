"""Data collators that add what a loss needs beside the encoder's features, on sentence-transformers' own collator.

That one names whatever a `preprocess` returns `{column}_{key}`, with the column's prompt and task resolved; so a loss's
collator is another `preprocess`, and nothing of the collator is overridden. Shapes: B batch, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from antiphon.errors import ConfigError
from antiphon.text.baking import write_specials
from antiphon.text.pieces import rendered
from antiphon.text.template import Side, fills_slots, template_of
from antiphon.text.tokens import LengthBudget, PieceTokenizer, check_texts
from antiphon.training.losses.decoding import CONTENT_IDS, CONTENT_MASK

DEFAULT_MAX_TOKENS = 512
"""What TemplateInput takes where a model names no length."""


def content_collator(
    model: SentenceTransformer, arguments: SentenceTransformerTrainingArguments | None = None
) -> SentenceTransformerDataCollator:
    """Return the trainer's `data_collator` for reconstruction: each text column also gets its text alone.

    `{column}_content_ids` and `{column}_content_mask` (B, T), right-padded, are the ids of the text as its slot says
    it: no template, no special tokens, what a user typed is text, cut to what the encoder reads of it. The trainer
    fills prompts and router mapping only into a collator it makes itself, so they are taken from `arguments`.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import content_collator
        >>> model = antiphon.build("nano")
        >>> batch = content_collator(model)([{"query": "sort a list"}])
        >>> model.tokenizer.decode(batch["query_content_ids"][0])
        ' sort a list'
    """
    return collator_of(ContentPreprocessor(model), arguments)


def collator_of(
    preprocess: Callable[..., dict[str, Any]], arguments: SentenceTransformerTrainingArguments | None
) -> SentenceTransformerDataCollator:
    """Return sentence-transformers' collator over another `preprocess`, with the prompts and tasks of `arguments`."""
    if arguments is None:
        return SentenceTransformerDataCollator(preprocess_fn=preprocess)
    return SentenceTransformerDataCollator(
        preprocess_fn=preprocess, router_mapping=arguments.router_mapping, prompts=arguments.prompts
    )


class ContentPreprocessor:
    """The model's `preprocess`, with `content_ids` and `content_mask` added."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.pieces = pieces_of(model)

    def __call__(
        self, inputs: Sequence[str], prompt: str | None = None, task: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the features of one column."""
        features = self.model.preprocess(inputs, prompt=prompt, task=task, **options)
        side: Side = "document" if task == "document" else "query"
        rows = contents(self.model, inputs, prompt=prompt or "", side=side, tokenizer=self.pieces)
        ids_BT, mask_BT = right_padded(rows)
        return {**features, CONTENT_IDS: ids_BT, CONTENT_MASK: mask_BT}


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (B, T), padded with 0 to at least one column; which id pads is nowhere read."""
    width = max([1, *map(len, rows)])
    ids_BT = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)
    lengths_B = torch.tensor([len(row) for row in rows])
    return ids_BT, (torch.arange(width) < lengths_B[:, None]).long()


def contents(
    model: SentenceTransformer,
    texts: Sequence[object],
    *,
    prompt: str,
    side: Side,
    tokenizer: PieceTokenizer | None = None,
) -> list[list[int]]:
    """Return the ids of each text alone, as its slot says it, cut to what the encoder reads of it under this prompt.

    `prompt` is what sentence-transformers gets: an instruction for a model with slots, else a prefix. `tokenizer` is
    `pieces_of(model)`, made anew where it is not given.
    """
    template, tokenizer = template_of(model), tokenizer or pieces_of(model)
    checked = check_texts(texts)
    budget = _budget(model, tokenizer, prompt, side)
    slot, first = None, True
    # a baked tokenizer puts the slot's space itself, and a model of others has no slot
    if template is not None and not (template.in_tokenizer and not fills_slots(model)):
        instructed = template.takes_instruction(side) and (
            bool(prompt) if fills_slots(model) else _instructed(model, prompt, side)
        )
        pieces = rendered(template.pieces(side), prompt if instructed else "")
        slot = next(piece for piece in pieces if piece.kind == "text")
        first = pieces[0].kind == "text" or slot.parted
    filled = checked if slot is None else [slot.fill(text) for text in checked]
    return [row[:budget] for row in tokenizer.texts(filled, first=first)]


def pieces_of(model: SentenceTransformer) -> PieceTokenizer:
    """Return the tokenizer of pieces of a model, antiphon's or not."""
    own = getattr(model[0], "piece_tokenizer", None)
    if isinstance(own, PieceTokenizer):
        return own
    plain = copy.deepcopy(model.tokenizer)
    write_specials(plain)  # a baked template says a text as often as it has copies, specials or not
    return PieceTokenizer(plain)


def _instructed(model: SentenceTransformer, prefix: str, side: Side) -> bool:
    """Return whether a stock model's prefix holds an instruction: it is longer than the one without."""
    template = template_of(model)
    return template is not None and len(prefix) > len(template.prefix("", side))


def _budget(model: SentenceTransformer, tokenizer: PieceTokenizer, prompt: str, side: Side) -> int:
    """Return how many tokens of a text the encoder reads.

    Raises ConfigError where the prompt leaves no room.
    """
    most = model.max_seq_length or DEFAULT_MAX_TOKENS
    template = template_of(model)
    if template is not None and fills_slots(model):
        return LengthBudget.of(template, tokenizer, side, most, prompt=prompt).budget
    # the space that ends a prefix is the text's first (see pieces.py)
    prefix = len(tokenizer.frame(prompt.removesuffix(" "), first=True)) if prompt else 0
    budget = most - prefix - int(model.tokenizer.num_special_tokens_to_add())
    if budget < 1:
        raise ConfigError(
            f"The prompt {prompt!r:.60} leaves no room for a text in max_seq_length={most}; shorten it or raise that."
        )
    return budget
