"""Plain texts as rows of token ids: what the losses that predict a text's own tokens read.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer

from antiphon.text.tokens import check_texts
from antiphon.training.losses.collating import DEFAULT_MAX_TOKENS, pieces_of, right_padded

IGNORED = -100
"""A target that none is predicted for."""


class TokenRows(NamedTuple):
    """Rows of tokens, padded on the right."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    content_BT: torch.Tensor
    """What may be predicted: tokens of the text that something stands before."""


class PlainTexts:
    """Reads plain texts, BOS and EOS around them, or rows of token ids, for one model."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.pieces = pieces_of(model)
        self.most = model.max_seq_length or DEFAULT_MAX_TOKENS

    def read(self, inputs: Sequence[object]) -> TokenRows:
        """Return the rows of texts, or of lists of token ids, each cut to the model's length."""
        rows = self._blocks(inputs) if inputs and isinstance(inputs[0], list) else self._texts(inputs)
        rows.content_BT[:, 0] = False  # what stands first has no position before it to be predicted from
        return rows

    def _texts(self, texts: Sequence[object]) -> TokenRows:
        specials = self.pieces.specials
        before = [] if specials.bos is None else [specials.bos]
        longest = self.most - len(before) - 1
        rows = [row[:longest] for row in self.pieces.texts(check_texts(texts), first=True)]
        ids_BT, mask_BT = right_padded([[*before, *row, specials.closing] for row in rows])
        content_BT = torch.zeros_like(mask_BT, dtype=torch.bool)
        for number, row in enumerate(rows):
            content_BT[number, len(before) : len(before) + len(row)] = True
        return TokenRows(ids_BT, mask_BT, content_BT)

    def _blocks(self, rows: Sequence[Any]) -> TokenRows:
        """Return rows of which everything is text but the BOS between texts."""
        ids_BT, mask_BT = right_padded([row[: self.most] for row in rows])
        bos = self.pieces.specials.bos
        content_BT = mask_BT.bool() & (ids_BT != bos if bos is not None else torch.ones_like(mask_BT, dtype=torch.bool))
        return TokenRows(ids_BT, mask_BT, content_BT)
