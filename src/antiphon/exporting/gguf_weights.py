"""The numbers of a GGUF file: hyperparameters and weights by llama.cpp's names, in 16 bits or blocks of 8.

Norms and biases stay in float32, as llama.cpp wants them. H heads, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PretrainedConfig, PreTrainedModel

from antiphon.errors import ConfigError, ModelError
from antiphon.model import causality

_LARGEST = {"F16": 65504.0}
_EXACT = 1e-6


@dataclass(frozen=True)
class Family:
    """How llama.cpp knows a family of transformers'."""

    architecture: str
    """By gguf's name."""
    neighbours: bool = False
    """Whether it turns neighbouring rows of queries and keys together; transformers turns the halves of a head."""
    scaled_rope: bool = False
    """Whether it reads factors for its rotary frequencies."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family("LLAMA", neighbours=True, scaled_rope=True),
    "mistral": Family("LLAMA", neighbours=True, scaled_rope=True),
    "qwen2": Family("QWEN2"),
    "qwen3": Family("QWEN3"),
}
"""By transformers' model_type."""
WEIGHT_TYPES: Mapping[str, tuple[str, str]] = {
    "f16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
"""What matrices are written in: the type of a tensor and that of a file, by gguf's names."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is written: its name, its shape before it is packed, its type, and its numbers."""

    name: str
    values: torch.Tensor
    kind: Any
    """gguf's GGMLQuantizationType."""

    def packed(self) -> npt.NDArray[Any]:
        """Return the numbers as bytes of their type. Raises ModelError where they do not fit into it."""
        values = self.values.detach().to("cpu", torch.float32).numpy()
        largest = _LARGEST.get(self.kind.name)
        if largest is not None and (most := float(np.abs(values).max(initial=0.0))) > largest:
            raise ModelError(
                f"{self.name} holds {most:.3g}, which float16 cannot hold; export to gguf-bf16 or gguf-q8_0."
            )
        packed: npt.NDArray[Any] = library().quantize(np.ascontiguousarray(values), self.kind)
        return packed

    def announced(self) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Return shape, dtype and bytes of what `packed` will return, without packing it."""
        gguf = library()
        shape, dtype = tuple(self.values.shape), np.dtype({"F32": "f4", "F16": "f2"}.get(self.kind.name, "u1"))
        if dtype == np.uint8:
            shape = tuple(gguf.quant_shape_to_byte_shape(shape, self.kind))
        return shape, dtype, int(np.prod(shape)) * dtype.itemsize


def library() -> Any:
    """Return gguf; ConfigError where it is not installed."""
    if find_spec("gguf") is None:
        raise ConfigError("The GGUF export needs gguf; pip install 'antiphon[gguf]'.")
    return import_module("gguf")


def family_of(backbone: PreTrainedModel, longest: int) -> Family:
    """Return the family of a decoder. Raises ModelError, with the way out, where a GGUF file would read otherwise.

    `longest` is the longest sequence in tokens.
    """
    config = backbone.config.get_text_config()
    kind = config.model_type
    if kind not in FAMILIES:
        raise ModelError(
            f"llama.cpp's names of {kind} are not known here, only those of {', '.join(FAMILIES)}; export to "
            "'portable' and use llama.cpp's own converter with the base's tokenizer."
        )
    if causality.is_bidirectional(backbone):
        raise ModelError(f"llama.cpp reads a {kind} causally and this one is bidirectional; export to 'portable'.")
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and longest > window:
        raise ModelError(
            f"llama.cpp passes over this model's sliding window of {window} tokens and a sequence has up to {longest}; "
            f"lower max_seq_length to {window}."
        )
    return FAMILIES[kind]


def write_settings(writer: Any, backbone: PreTrainedModel, family: Family, *, weights: str) -> None:
    """Write the hyperparameters."""
    gguf = library()
    config = backbone.config.get_text_config()
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(backbone.get_input_embeddings().num_embeddings)
    writer.add_file_type(gguf.LlamaFileType[WEIGHT_TYPES[weights][1]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def tensors(backbone: PreTrainedModel, family: Family, *, weights: str) -> Iterator[Tensor]:
    """Yield the tensors of a decoder without its vocabulary head. Raises ModelError for one that has no name there."""
    gguf = library()
    config = backbone.config.get_text_config()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.architecture], config.num_hidden_layers)
    kinds = gguf.GGMLQuantizationType
    wanted, full = kinds[WEIGHT_TYPES[weights][0]], kinds.F32
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    for own, values in backbone.state_dict().items():
        name = names.get_name(f"model.{own}", try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(
                f"llama.cpp has no name for the weight {own} of {config.model_type}; export to 'portable'."
            )
        if family.neighbours and ".self_attn.q_proj." in own:
            values = _neighbours(values, config.num_attention_heads)
        elif family.neighbours and ".self_attn.k_proj." in own:
            values = _neighbours(values, config.num_key_value_heads)
        fits = values.dim() == 2 and values.shape[-1] % block == 0
        yield Tensor(name, values, wanted if fits else full if values.dim() < 2 else kinds.F16)
    factors = rope_factors(backbone)
    if factors is not None:
        if not family.scaled_rope:
            raise ModelError(
                f"llama.cpp reads no scaled rotary frequencies of {config.model_type}; export to 'portable'."
            )
        yield Tensor(f"{gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]}.weight", factors, full)


def rope_factors(backbone: PreTrainedModel) -> torch.Tensor | None:
    """Return by what each rotary frequency is divided, None where none is scaled.

    Raises ModelError for a scaling that also changes with the length or scales attention.
    """
    config: PretrainedConfig = backbone.config.get_text_config()
    parameters = config.rope_parameters
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        return None
    if kind not in ("llama3", "linear"):
        raise ModelError(f"A GGUF file is not written with rotary frequencies of type {kind!r}; export to 'portable'.")
    actual = backbone.rotary_emb.inv_freq.detach().double().cpu()
    steps = torch.arange(len(actual), dtype=torch.float64) / len(actual)
    plain = float(parameters["rope_theta"]) ** -steps
    factors: torch.Tensor = (plain / actual).float()
    return factors


def _neighbours(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the rows of a head (first half, second half) so that those that turn together are neighbours."""
    rows = values.shape[0]
    halves = values.reshape(heads, 2, rows // heads // 2, *values.shape[1:])
    return halves.transpose(1, 2).reshape(values.shape).contiguous()
