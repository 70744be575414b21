"""Which models can be run packed, by the Encoder and in training."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from transformers import PreTrainedModel

from antiphon import compat
from antiphon.modules import SpanPooling

_KINDS = {"full_attention", "sliding_attention"}
"""Layers that know tokens by mask and position alone; recurrent ones would run on from text to text."""
_MASKED = ("sdpa", "eager")
"""Attention implementations of transformers that take a mask of which token sees which."""
FAMILIES = frozenset(
    {
        "gemma2",
        "gemma3_text",
        "gpt_neox",
        "llama",
        "mistral",
        "olmo2",
        "olmo3",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Types of decoders that the tests run packed. Where one of them is not, something is broken, and that is said."""


def unsupported_reason(model: SentenceTransformer) -> str | None:
    """Return why a model cannot be run packed, as the end of a sentence; None where nothing speaks against it."""
    return _unsupported_modules(model) or _unsupported_setting(model[0]) or _unsupported_decoder(model[0])


def unsupported_in_training(model: SentenceTransformer) -> str | None:
    """Return the same of a forward of the model itself, with gradients, which asks less of the decoder."""
    module = model[0]
    if not isinstance(module, Transformer):
        return f"its first module is {type(module).__name__} and no Transformer"
    attention = compat.attention_of(module.model.config.get_text_config())
    if attention not in _MASKED:
        return f"attention {attention} takes no mask of which token sees which"
    for part in list(model)[1:]:
        if any(True for _ in part.parameters()):
            return f"{type(part).__name__} behind pooling has weights, which only a whole forward may use"
        if isinstance(part, Pooling) and not part.include_prompt:
            return "its pooling leaves out the prompt"
    return _unsupported_layers(module)


def is_supported(model: SentenceTransformer) -> bool:
    """Return whether a model is of a family that runs packed, in modules and on a device that do."""
    if _unsupported_modules(model) is not None or _unsupported_setting(model[0]) is not None:
        return False
    return model[0].model.config.model_type in FAMILIES


def fault(model: SentenceTransformer) -> str:
    """Return what to say, as the end of a sentence, where something faster is off for a model that is supported."""
    return f"{model[0].model.config.model_type} is supported, so this is a fault: {compat.releases()}"


def _unsupported_modules(model: SentenceTransformer) -> str | None:
    modules = list(model)
    if not modules or not isinstance(modules[0], Transformer):
        return f"its first module is {type(modules[0]).__name__ if modules else 'missing'} and no Transformer"
    if len(modules) < 2 or not isinstance(modules[1], Pooling | SpanPooling):
        return "its second module is no pooling"
    strange = [module for module in modules[2:] if not isinstance(module, Normalize | Dense | LayerNorm | Dropout)]
    if strange:
        return f"what {type(strange[0]).__name__} does behind the pooling is not known"
    return None


def _unsupported_setting(module: Transformer) -> str | None:
    decoder = module.model
    kind = getattr(getattr(decoder, "config", None), "model_type", type(decoder).__name__)
    if module.backend != "torch" or not isinstance(decoder, PreTrainedModel):
        return f"{kind} does not run on plain PyTorch"
    if getattr(decoder, "hf_device_map", None) is not None and len(set(decoder.hf_device_map.values())) > 1:
        return f"{kind} is spread over several devices"
    return None


def _unsupported_decoder(module: Transformer) -> str | None:
    decoder = module.model
    kind = decoder.config.model_type
    if module.modality_config.get("text", {}).get("method_output_name") not in (
        "last_hidden_state",
        ("last_hidden_state",),
        ["last_hidden_state"],
    ):
        return f"{kind} does not give the states of its last layer"
    if not (hasattr(decoder, "layers") and hasattr(decoder, "rotary_emb")):
        return f"{kind} is no decoder with rotary positions"
    if not decoder.is_backend_compatible():
        return f"{kind} does not use transformers' attention interface"
    return _unsupported_layers(module)


def _unsupported_layers(module: Transformer) -> str | None:
    config = module.model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - _KINDS
    if others:
        return f"{config.model_type} has layers that run on from text to text ({', '.join(sorted(others))})"
    return None
