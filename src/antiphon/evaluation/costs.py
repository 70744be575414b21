"""What texts cost a model: tokens as it reads them, and operations by formula."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from antiphon.evaluation.embedder import Embedder
from antiphon.evaluation.scores import Cost
from antiphon.text.template import Side

SAMPLED = 256
"""Texts whose tokens are counted."""
_SEED = 0


def cost_of(model: SentenceTransformer, embedder: Embedder) -> Cost:
    """Return the cost of what an embedder has seen; tokens are those of a seeded sample of the texts."""
    texts = [(text, prompt, side) for (prompt, side), seen in embedder.seen.items() for text in seen]
    sampled = random.Random(_SEED).sample(texts, min(SAMPLED, len(texts)))
    groups: dict[tuple[str, Side], list[str]] = {}
    for text, prompt, side in sampled:
        groups.setdefault((prompt, side), []).append(text)
    counted = [count for (prompt, side), group in groups.items() for count in tokens(model, group, prompt, side)]
    flops = [operations(model, count) for count in counted]
    return Cost(
        texts=len(texts),
        tokens_per_text=sum(counted) / max(len(counted), 1),
        flops_per_text=sum(flops) / max(len(flops), 1),
        seconds_per_text=embedder.seconds / embedder.embedded if embedder.embedded else None,
    )


def tokens(model: SentenceTransformer, texts: list[str], prompt: str, side: Side) -> list[int]:
    """Return how many tokens the model reads for each text: frame, prompt, every copy and special tokens."""
    features: Mapping[str, torch.Tensor] = model.preprocess(texts, prompt=prompt, task=side)
    mask = features.get("attention_mask")
    if mask is None:
        return [0] * len(texts)
    return [int(count) for count in mask.sum(dim=1)]


def operations(model: SentenceTransformer, length: int) -> float:
    """Return the floating-point operations of one forward pass over `length` tokens.

    2 N T for the N weights that every token goes through (the table of embeddings is looked up, not multiplied), and
    4 L D T^2 for the scores and sums of L layers of attention of width D, without the half that a causal mask may save.
    """
    backbone: Any = getattr(model[0], "model", None) or model[0]
    table = backbone.get_input_embeddings() if hasattr(backbone, "get_input_embeddings") else None
    looked_up = 0 if table is None else sum(parameter.numel() for parameter in table.parameters())
    weights = sum(parameter.numel() for parameter in backbone.parameters()) - looked_up
    config: Any = getattr(backbone, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers, width = int(getattr(config, "num_hidden_layers", 0)), int(getattr(config, "hidden_size", 0))
    return float(2 * weights * length + 4 * layers * width * length**2)
