"""What a backbone is made of: parameters and widths, from its configuration, or from a table where there is no hub.

The table holds what the models' own published config.json say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from antiphon import nano
from antiphon.errors import ModelError, first_line


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide what it costs."""

    layers: int
    width: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool

    @property
    def body(self) -> int:
        """Weights of the layers: those that every token is multiplied with."""
        attention = 2 * self.width * self.head_width * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.width * self.intermediate)

    @property
    def embeddings(self) -> int:
        """Weights of the token embeddings, and of the head where it has its own."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights, norms left out."""
        return self.body + self.embeddings


KNOWN: Mapping[str, Shape] = {
    "meta-llama/Llama-3.2-1B-Instruct": Shape(16, 2048, 8192, 32, 8, 64, 128256, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": Shape(28, 3072, 8192, 24, 8, 128, 128256, tied=True),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(32, 4096, 14336, 32, 8, 128, 128256, tied=False),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(28, 1536, 8960, 12, 2, 128, 151936, tied=True),
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 128, 151936, tied=True),
    "mistralai/Mistral-7B-Instruct-v0.1": Shape(32, 4096, 14336, 32, 8, 128, 32000, tied=False),
    "mistralai/Mistral-7B-Instruct-v0.2": Shape(32, 4096, 14336, 32, 8, 128, 32000, tied=False),
    "princeton-nlp/Sheared-LLaMA-1.3B": Shape(24, 2048, 5504, 16, 16, 128, 32000, tied=False),
}


def shape_of(base: str) -> Shape:
    """Return the shape of a base; ModelError where its configuration is not to be had and the table has it not."""
    source = str(nano.folder()) if base == "nano" else base
    if base in KNOWN and not Path(source).exists():
        return KNOWN[base]
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{base} has no configuration that could be read, so nothing is planned: {first_line(error)}"
        ) from error
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
    )
