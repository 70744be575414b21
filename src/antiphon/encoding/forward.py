"""From a batch of packed texts to their vectors: one forward pass, then the model's own pooling and what follows it.

R rows, W their width, K kept columns of a row, B texts of the batch, T pooled positions of a text, P tokens of the
prefix, S = P + R x K states, D width; what these count is drawn in positions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from antiphon.encoding.decoder import Decoder
from antiphon.encoding.layer import ForwardPass
from antiphon.encoding.masks import moved
from antiphon.encoding.packing import Batch
from antiphon.encoding.positions import PooledPositions
from antiphon.encoding.prefix import Prefix
from antiphon.encoding.tokenised import Tokens
from antiphon.encoding.widened import widened
from antiphon.modules import SpanPooling

PRUNE_BELOW = 0.85
"""The last layer is pruned where fewer of the tokens than this are pooled: its two runs cost something too."""


class PooledTokens:
    """Which positions of a text its pooling reads."""

    def __init__(self, model: SentenceTransformer) -> None:
        pooling = model[1]
        self.last_only = (isinstance(pooling, SpanPooling) and pooling.pooling_mode == "last") or (
            isinstance(pooling, Pooling) and pooling.pooling_mode == "lasttoken"
        )

    def of(self, tokens: Tokens) -> list[int]:
        """Return the positions, counted from the first token of the whole sequence."""
        if self.last_only:
            return [len(tokens.ids) - 1]  # both poolings' last marked token is the sequence's last
        if tokens.pooled is None:
            return list(range(len(tokens.ids)))
        return [at for at, marked in enumerate(tokens.pooled) if marked]


def vectors_of(
    model: SentenceTransformer, decoder: Decoder, batch: Batch, texts: Sequence[Tokens], prefix: Prefix | None
) -> torch.Tensor:
    """Return the vectors (B, D) of a batch, in the order of its places; `texts` is what its numbers index."""
    before = 0 if prefix is None else len(prefix)
    rule = PooledTokens(model)
    pooled = PooledPositions.of(batch, [rule.of(texts[place.text]) for place in batch.placed], before)
    ids_RW, text_RW, position_RW = _packed(batch, texts, before)
    # without a mask a text's queries are its last tokens, so they can be fewer only where the last one is pooled
    prune = pooled.most < PRUNE_BELOW * batch.width and (rule.last_only or not decoder.flat)
    kept_RK = moved(torch.tensor(pooled.kept_columns()), decoder.model.device) if prune else None
    states = decoder(ids_RW, text_RW, position_RW, ForwardPass(() if prefix is None else prefix.keys, kept_RK))
    states_SD = states.reshape(-1, states.shape[-1])
    if prefix is not None:
        states_SD = torch.cat([prefix.states_PD, states_SD])
    return _finish(model, states_SD, pooled.states(pruned=prune), texts[batch.placed[0].text].prompt_length)


def _packed(batch: Batch, texts: Sequence[Tokens], before: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, numbers of texts (-1 is padding) and positions, each (R, W).

    All texts are written at once (N tokens): of short ones a batch has thousands.
    """
    ids_N = torch.tensor([one for place in batch.placed for one in texts[place.text].ids[before:]], dtype=torch.long)
    lengths_B = torch.tensor([place.length for place in batch.placed])
    firsts_B = torch.tensor([place.row * batch.width + place.start for place in batch.placed])
    text_N = torch.arange(len(lengths_B)).repeat_interleave(lengths_B)
    within_N = torch.arange(len(ids_N)) - (lengths_B.cumsum(0) - lengths_B)[text_N]

    def laid_out(values_N: torch.Tensor, padding: int) -> torch.Tensor:
        cells = torch.full((batch.rows * batch.width,), padding)
        cells[firsts_B[text_N] + within_N] = values_N
        return cells.view(batch.rows, batch.width)

    return laid_out(ids_N, 0), laid_out(text_N, -1), laid_out(before + within_N, 0)


def _finish(
    model: SentenceTransformer, flat: torch.Tensor, rows: Sequence[Sequence[int]], prompt_length: int | None
) -> torch.Tensor:
    """Return the vectors (B, D) that the modules behind the decoder make of the pooled states."""
    most = max(map(len, rows))
    at_BT = moved(torch.tensor([[*row, *[0] * (most - len(row))] for row in rows]), flat.device)
    mask_BT = moved(torch.tensor([[1] * len(row) + [0] * (most - len(row)) for row in rows]), flat.device)
    features: dict[str, Any] = {
        "token_embeddings": flat[at_BT],
        "attention_mask": mask_BT,
        "pool_mask": mask_BT,
        "modality": "text",
    }
    if prompt_length is not None and not PooledTokens(model).last_only:
        features["prompt_length"] = prompt_length
    for module in list(widened(model) if flat.dtype == torch.float32 else model)[1:]:
        features = module(features)
    vectors: torch.Tensor = features["sentence_embedding"]
    return vectors
