"""From a batch of packed texts to their vectors: one forward pass, then the model's own pooling and what follows it.

R rows, W their width, K kept positions of a row, B texts of the batch, T positions of a text that are pooled, P tokens of
the prefix, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from antiphon.encoding.decoder import Decoder, Pass
from antiphon.encoding.planning import Batch
from antiphon.encoding.prefix import Prefix
from antiphon.encoding.reading import Tokens
from antiphon.modules import SpanPooling

PRUNE_BELOW = 0.85
"""The last layer is pruned where fewer of the tokens than this are pooled: its two runs cost something too."""


class Pooled:
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
    pooled = Pooled(model)
    before = 0 if prefix is None else len(prefix)
    positions = [pooled.of(texts[place.text]) for place in batch.placed]
    ids_RW, text_RW, position_RW = _packed(batch, texts, before)
    device = decoder.model.device
    wanted: list[list[int]] = [[] for _ in range(batch.rows)]
    index_of = []
    for place, at in zip(batch.placed, positions, strict=True):
        own = [place.start + position - before for position in at if position >= before]
        index_of.append((place.row, len(wanted[place.row]), len(own), [p for p in at if p < before]))
        wanted[place.row] += own
    most = max(map(len, wanted))
    prune = most < PRUNE_BELOW * batch.width
    kept_RK = None
    if prune:
        kept_RK = torch.tensor([row + [0] * (most - len(row)) for row in wanted], device=device)
    run = Pass(prefix.keys if prefix is not None else (), kept_RK)
    states_RKD = decoder(ids_RW.to(device), text_RW.to(device), position_RW.to(device), run)
    flat = states_RKD.reshape(-1, states_RKD.shape[-1])
    width = states_RKD.shape[1]
    rows = []
    for (row, first, count, early), places in zip(index_of, wanted_slices(wanted, index_of), strict=True):
        own = range(row * width + first, row * width + first + count) if prune else [row * width + p for p in places]
        rows.append([*early, *(before + at for at in own)])
    if prefix is not None:
        flat = torch.cat([prefix.states_PD, flat])
    return _finish(model, flat, rows, texts[batch.placed[0].text].prompt_length)


def wanted_slices(
    wanted: Sequence[Sequence[int]], index_of: Sequence[tuple[int, int, int, list[int]]]
) -> list[Sequence[int]]:
    """Return each text's positions in its row."""
    return [wanted[row][first : first + count] for row, first, count, _ in index_of]


def _packed(batch: Batch, texts: Sequence[Tokens], before: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, numbers of texts (-1 is padding) and positions, each (R, W)."""
    shape = (batch.rows, batch.width)
    ids_RW = torch.zeros(shape, dtype=torch.long)
    text_RW = torch.full(shape, -1, dtype=torch.long)
    position_RW = torch.zeros(shape, dtype=torch.long)
    for number, place in enumerate(batch.placed):
        span = slice(place.start, place.start + place.length)
        ids_RW[place.row, span] = torch.tensor(texts[place.text].ids[before:])
        text_RW[place.row, span] = number
        position_RW[place.row, span] = torch.arange(before, before + place.length)
    return ids_RW, text_RW, position_RW


def _finish(
    model: SentenceTransformer, flat: torch.Tensor, rows: Sequence[Sequence[int]], prompt_length: int | None
) -> torch.Tensor:
    """Return the vectors (B, D) that the modules behind the decoder make of the pooled states."""
    most = max(map(len, rows))
    at_BT = torch.tensor([[*row, *[0] * (most - len(row))] for row in rows], device=flat.device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (most - len(row)) for row in rows], device=flat.device)
    features: dict[str, Any] = {
        "token_embeddings": flat[at_BT],
        "attention_mask": mask_BT,
        "pool_mask": mask_BT,
        "modality": "text",
    }
    if prompt_length is not None and not Pooled(model).last_only:
        features["prompt_length"] = prompt_length
    for module in list(model)[1:]:
        features = module(features)
    vectors: torch.Tensor = features["sentence_embedding"]
    return vectors
