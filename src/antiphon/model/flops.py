"""What a decoder costs: its shape, floating point operations of a forward pass, and bytes while it is trained.

One formula for a plan and for what an evaluation reports. The shape comes from the modules themselves, built without
weights where there are none, so that it is right for every family; bases that cannot be had here are in a table of what
their published config.json say. T tokens of a text, D width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from antiphon import nano
from antiphon.errors import foreign
from antiphon.text.template import Side

MOMENT_BYTES = 8
"""AdamW's two moments in fp32, for each trained weight."""
GRADIENT_BYTES = 4
ACTIVATION_BYTES = 34
"""Bytes of activations that a layer keeps for each token and unit of width, 16-bit (Korthikanti et al., 2022)."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that decide what it costs."""

    layers: int
    width: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    body: int
    """Weights of the layers' matrices."""
    active: int
    """Those that each token is multiplied with: fewer than `body` where it goes to some of the experts."""

    @property
    def embeddings(self) -> int:
        """Weights of the token embeddings, and of the head where it has its own."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights, norms left out."""
        return self.body + self.embeddings

    def adapter_parameters(self, rank: int) -> int:
        """Return the weights of low-rank adapters on all linear layers of a gated decoder."""
        attention = 4 * self.width + 2 * self.head_width * (self.heads + self.key_value_heads)
        return rank * self.layers * (attention + 3 * (self.width + self.intermediate))


def _gated(  # noqa: PLR0913  (the columns of the table below)
    layers: int, width: int, intermediate: int, heads: int, key_value_heads: int, head_width: int, vocabulary: int,
    *, tied: bool,
) -> DecoderShape:  # fmt: skip
    """Return the shape of a Llama-like decoder: four matrices of attention, three of a gated MLP."""
    body = layers * (2 * width * head_width * (heads + key_value_heads) + 3 * width * intermediate)
    return DecoderShape(
        layers, width, intermediate, heads, key_value_heads, head_width, vocabulary, tied, body=body, active=body
    )


PUBLISHED: Mapping[str, DecoderShape] = {
    "meta-llama/Llama-3.2-1B-Instruct": _gated(16, 2048, 8192, 32, 8, 64, 128256, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": _gated(28, 3072, 8192, 24, 8, 128, 128256, tied=True),
    "meta-llama/Llama-3.1-8B-Instruct": _gated(32, 4096, 14336, 32, 8, 128, 128256, tied=False),
    "Qwen/Qwen2.5-1.5B-Instruct": _gated(28, 1536, 8960, 12, 2, 128, 151936, tied=True),
    "Qwen/Qwen3-0.6B": _gated(28, 1024, 3072, 16, 8, 128, 151936, tied=True),
    "mistralai/Mistral-7B-Instruct-v0.1": _gated(32, 4096, 14336, 32, 8, 128, 32000, tied=False),
    "mistralai/Mistral-7B-Instruct-v0.2": _gated(32, 4096, 14336, 32, 8, 128, 32000, tied=False),
    "princeton-nlp/Sheared-LLaMA-1.3B": _gated(24, 2048, 5504, 16, 16, 128, 32000, tied=False),
}


def shape_of(base: str) -> DecoderShape:
    """Return the shape of a base; ModelError where its configuration is not to be had and the table has it not."""
    source = str(nano.folder()) if base == "nano" else base
    if base in PUBLISHED and not Path(source).exists():
        return PUBLISHED[base]
    with foreign(f"{base} has no configuration that could be read, so nothing is planned"), torch.device("meta"):
        config: PretrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False).get_text_config()
        backbone = AutoModel.from_config(config, trust_remote_code=False)
    return shape_of_decoder(backbone)


def shape_of_decoder(backbone: nn.Module) -> DecoderShape:
    """Return the shape of a decoder of transformers, counted on its modules."""
    config = cast(PretrainedConfig, backbone.config).get_text_config()
    heads = config.num_attention_heads
    experts = next((getattr(config, name) for name in _EXPERTS if getattr(config, name, None)), 1)
    share = (getattr(config, "num_experts_per_tok", None) or experts) / experts
    tables = {id(part.weight) for part in backbone.modules() if isinstance(part, nn.Embedding)}
    matrices = {
        name: weight.numel()
        for name, weight in backbone.named_parameters()
        if weight.dim() > 1 and id(weight) not in tables and ".lora_" not in name
    }
    routed = sum(size for name, size in matrices.items() if ".experts." in name)
    body = sum(matrices.values())
    return DecoderShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        body=body,
        active=round(body - routed + share * routed),
    )


def forward_flops(shape: DecoderShape, tokens: float) -> float:
    """Return the floating point operations of one text's forward pass, without the vocabulary.

    2 N T for the N weights that every token is multiplied with, and 4 L T^2 times the width of all heads for scores and
    sums. It is what torch's counter counts: the half that a causal mask may save is not taken off.

    >>> forward_flops(PUBLISHED["Qwen/Qwen3-0.6B"], 512) / 1e9
    511.1...
    """
    return 2 * shape.active * tokens + 4 * shape.layers * shape.heads * shape.head_width * tokens**2


def tokens_read(model: SentenceTransformer, texts: list[str], prompt: str, side: Side) -> list[int]:
    """Return how many tokens the model reads for each text: frame, prompt, every copy and special tokens."""
    features: Mapping[str, torch.Tensor] = model.preprocess(texts, prompt=prompt, task=side)
    mask = features.get("attention_mask")
    if mask is None:
        return [0] * len(texts)
    return [int(count) for count in mask.sum(dim=1)]


def vocabulary_flops(shape: DecoderShape, tokens: float) -> float:
    """Return the floating point operations of so many states' logits, forward."""
    return 2 * shape.vocabulary * shape.width * tokens


def training_memory(
    shape: DecoderShape, tokens: float, *, trained: float, weight_bytes: int, gradient_checkpointing: bool
) -> float:
    """Return an estimate of the bytes on one card: weights, gradients, moments, and activations of `tokens` at once."""
    fixed = shape.parameters * weight_bytes + trained * (GRADIENT_BYTES + MOMENT_BYTES)
    layer = ACTIVATION_BYTES * shape.width * tokens
    kept = 2 * shape.width * tokens * shape.layers + layer if gradient_checkpointing else layer * shape.layers
    return fixed + kept
