"""What a model makes of a text: its tokens, which of them are pooled, and the settings that decide the vector.

Works for any sentence-transformers model with a tokenizer. It computes and says nothing; report.py does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from antiphon import compat
from antiphon.errors import ConfigError, ModelError
from antiphon.model.causality import is_bidirectional
from antiphon.model.parity import dtype_of
from antiphon.model.prompts import prompt_of
from antiphon.text.template import SIDES, Side, template_of

_CONTEXT = 6
"""Tokens decoded before a token so that its own part of a character or a space shows."""


@dataclass(frozen=True)
class Token:
    """A token of the sequence as it reads, and whether its state goes into the vector."""

    id: int
    text: str
    pooled: bool


@dataclass(frozen=True)
class Description:
    """How a model reads a text."""

    tokens: tuple[Token, ...]
    cut: bool
    """Whether the sequence is full, so that more words at the text's end would not be read."""
    max_tokens: int | None
    positions: int | None
    template: str
    side: str
    prompt: str
    """What sentence-transformers is handed as `prompt`."""
    pooling: str
    dimensions: int | None
    dtype: str
    attention: str
    device: str
    modules: str
    """Whether plain sentence-transformers can load the model."""

    @property
    def pooled(self) -> int:
        """How many tokens are pooled."""
        return sum(token.pooled for token in self.tokens)


def describe(model: SentenceTransformer, text: str, *, prompt: str | None = None, side: str = "query") -> Description:
    """Return how the model reads `text`; `prompt` is an instruction, and without one the model's own is taken.

    Raises ConfigError for an unknown side, ModelError for a model that reads no token ids.
    """
    if side not in SIDES:
        raise ConfigError(f"There is no side {side!r}; take one of {', '.join(SIDES)}.")
    chosen: Side = "document" if side == "document" else "query"
    handed = prompt_of(model, chosen, instruction=prompt)
    features = model.preprocess([text], prompt=handed, task=chosen)
    if "input_ids" not in features or not isinstance(model.tokenizer, PreTrainedTokenizerBase):
        raise ModelError(f"{type(model[0]).__name__} reads no token ids, so there are no tokens to show.")
    longer = model.preprocess([f"{text} and some words more"], prompt=handed, task=chosen)
    kept = features["attention_mask"][0].bool()
    ids = features["input_ids"][0][kept].tolist()
    pooled = [bool(mark) for mark in pooled_marks(model, features)[kept.tolist().index(True) :][: len(ids)]]
    template = template_of(model)
    config = getattr(getattr(model[0], "model", None), "config", None)
    return Description(
        tokens=tuple(map(Token, ids, readable(model.tokenizer, ids), pooled)),
        cut=longer["input_ids"].shape == features["input_ids"].shape,
        max_tokens=model.max_seq_length,
        positions=getattr(config, "max_position_embeddings", None),
        template="none" if template is None else template.name,
        side=side,
        prompt=handed,
        pooling=pooling_of(model),
        dimensions=model.get_embedding_dimension(),
        dtype=dtype_of(model),
        attention=_attention(model),
        device=str(model.device),
        modules=_modules(model),
    )


def pooled_marks(model: SentenceTransformer, features: dict[str, Any]) -> list[int]:
    """Return a 1 for every position of the one text in `features` whose state goes into the vector, (T,) numbers."""
    mask: list[int] = features.get("pool_mask", features["attention_mask"])[0].tolist()
    positions = [n for n, value in enumerate(mask) if value]
    mode = _mode(model)
    if mode in ("lasttoken", "last"):
        positions = positions[-1:]
    elif mode == "cls":
        positions = positions[:1]
    elif mode is None:
        positions = []
    stock = next((module for module in model if isinstance(module, Pooling)), None)
    if stock is not None and not stock.include_prompt and mode != "cls":
        positions = [n for n in positions if n >= int(features.get("prompt_length", 0))]
    return [int(n in positions) for n in range(len(mask))]


def readable(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Return what each token adds to the text, the bytes of a character that is not whole yet as a replacement mark."""
    out = []
    for number, index in enumerate(ids):
        before = ids[max(0, number - _CONTEXT) : number]
        shorter, longer = (
            str(tokenizer.decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False)) if some else ""
            for some in (before, [*before, index])
        )
        # the last mark of the shorter one may stand for bytes that this token makes a character of
        same = takewhile(lambda pair: pair[0] == pair[1], zip(shorter, longer, strict=False))
        out.append(longer[sum(1 for _ in same) :])
    return out


def _mode(model: SentenceTransformer) -> str | None:
    mode = next((module.pooling_mode for module in model if hasattr(module, "pooling_mode")), None)
    return mode if mode is None or isinstance(mode, str) else "+".join(mode)


def pooling_of(model: SentenceTransformer) -> str:
    """Return the pooling by its name, or what stands in its place."""
    mode = _mode(model)
    return f"none that is known ({', '.join(type(module).__name__ for module in model)})" if mode is None else mode


def _attention(model: SentenceTransformer) -> str:
    inner = getattr(model[0], "model", None)
    if inner is None:
        return "none"
    kind = "bidirectional" if is_bidirectional(inner) or not _decodes(inner) else "causal"
    return f"{kind}, {compat.attention_of(inner.config)}"


def _decodes(inner: Any) -> bool:
    """Return whether the architecture is a decoder: transformers builds a causal language model of it."""
    kind = inner.config.model_type
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(inner.config, "is_decoder", False)
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked


def _modules(model: SentenceTransformer) -> str:
    names = " + ".join(type(module).__name__ for module in model)
    stock = all(type(module).__module__.startswith("sentence_transformers.") for module in model)
    return f"{names} ({'stock sentence-transformers' if stock else 'needs antiphon to load'})"
