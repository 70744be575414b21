"""What texts cost a model: tokens as it reads them, and operations by formula."""

from __future__ import annotations

import random

from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from antiphon.evaluation.embedder import CountingEmbedder
from antiphon.evaluation.scores import TaskCost
from antiphon.model.flops import forward_flops, shape_of_decoder, tokens_read
from antiphon.text.template import Side

SAMPLED = 256
"""Texts whose tokens are counted."""
_SEED = 0


def cost_of(model: SentenceTransformer, embedder: CountingEmbedder) -> TaskCost:
    """Return the cost of what an embedder has seen; tokens are those of a seeded sample of the texts."""
    texts = [(text, prompt, side) for (prompt, side), seen in embedder.seen.items() for text in seen]
    sampled = random.Random(_SEED).sample(texts, min(SAMPLED, len(texts)))
    groups: dict[tuple[str, Side], list[str]] = {}
    for text, prompt, side in sampled:
        groups.setdefault((prompt, side), []).append(text)
    counted = [count for (prompt, side), group in groups.items() for count in tokens_read(model, group, prompt, side)]
    flops = _flops(model, counted)
    return TaskCost(
        texts=len(texts),
        tokens_per_text=sum(counted) / max(len(counted), 1),
        flops_per_text=sum(flops) / max(len(flops), 1),
        seconds_per_text=embedder.seconds / embedder.embedded if embedder.embedded else None,
    )


def _flops(model: SentenceTransformer, counted: list[int]) -> list[float]:
    """Return the operations of one forward pass of each text; 0 for a model that is no decoder of transformers."""
    backbone = getattr(model[0], "model", None)
    if not isinstance(backbone, PreTrainedModel):
        return [0.0] * len(counted)
    shape = shape_of_decoder(backbone)
    return [forward_flops(shape, count) for count in counted]
