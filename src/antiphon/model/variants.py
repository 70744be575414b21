"""A model with one thing about it changed: no EOS, no template, another prompt, pooling, length or dtype.

What another tool does to a model by mistake is one of these. Shapes: N texts, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from antiphon.errors import ConfigError
from antiphon.model import parity
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.parity import Vectors
from antiphon.model.prompts import prompt_of
from antiphon.modules import POOL, SpanPooling
from antiphon.text.template import Side, fills_slots, template_of
from antiphon.text.tokens import PieceTokenizer

POOLINGS = ("last", "mean", "weighted_mean", "first")
Reading = Literal["bare", "chat"]
TextChange = Literal["stripped", "lowered"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is changed; None leaves the model as it is."""

    eos: bool | None = None
    """Whether a sequence ends with EOS."""
    bos: bool | int | None = None
    """Whether a sequence begins with BOS; 2 is BOS twice."""
    prompt: str | None = None
    side: Side | None = None
    pooling: str | None = None
    """One of POOLINGS, over all tokens."""
    dtype: torch.dtype | None = None
    max_tokens: int | None = None
    """Where a text is cut."""
    sequence: int | None = None
    """So many tokens are kept of the whole sequence; a negative number keeps its end."""
    reading: Reading | None = None
    """bare: the text alone between BOS and EOS; chat: as a user's turn of the tokenizer's chat template."""
    text: TextChange | None = None
    """stripped: without white space at both ends; lowered: in lower case."""
    dense: bool | None = None
    """Whether Dense modules behind the pooling act."""

    def joined(self, other: Variant) -> Variant | None:
        """Return both changes as one, None where they change the same thing."""
        mine = {name: value for name, value in vars(self).items() if value is not None}
        theirs = {name: value for name, value in vars(other).items() if value is not None}
        return None if mine.keys() & theirs.keys() else Variant(**mine, **theirs)


@torch.inference_mode()
def encode(model: SentenceTransformer, texts: Sequence[str], side: Side, variant: Variant) -> Vectors:
    """Return (N, D) vectors of the changed model; one text at a time, so that nothing depends on padding."""
    if variant == Variant(dtype=variant.dtype):  # in batches, whose rounding is what another tool's batches have
        with in_dtype(model, variant.dtype):
            return parity.encode(model, texts, side=side)
    side = variant.side or side
    prompt = prompt_of(model, side) if variant.prompt is None else variant.prompt
    with evaluation_mode(model), in_dtype(model, variant.dtype), _cut(model, variant.max_tokens):
        rows = [_vector(model, text, prompt, side, variant) for text in texts]
    return np.stack(rows)


def tokens(model: SentenceTransformer, text: str, prompt: str, side: Side) -> tuple[list[int], list[int]]:
    """Return the T ids of a text and its T pooling marks."""
    features = model.preprocess([text], prompt=prompt or None, task=side)
    here = features["attention_mask"][0].bool()
    marks = features.get("pool_mask", features["attention_mask"])[0][here]
    return features["input_ids"][0][here].tolist(), marks.tolist()


def is_cut(model: SentenceTransformer, text: str, side: Side) -> bool:
    """Return whether a text is too long for the model: what is said after it is not read."""
    prompt = prompt_of(model, side)
    return tokens(model, text, prompt, side) == tokens(model, text + " and so on", prompt, side)


def _vector(model: SentenceTransformer, text: str, prompt: str, side: Side, variant: Variant) -> Vectors:
    ids, marks = _read(model, text, prompt, side, variant)
    ids, marks = _with_ends(model, ids, marks, variant)
    if variant.sequence is not None:
        kept = slice(variant.sequence) if variant.sequence > 0 else slice(variant.sequence, None)
        ids, marks = ids[kept], marks[kept]
        marks = marks if any(marks) else [*marks[:-1], 1]
    ids_BT = torch.tensor([ids or [0]], device=model.device)
    marks_BT = torch.tensor([marks or [1]], device=model.device)
    mask_BT = torch.ones_like(ids_BT)
    hidden_BTD = model[0].model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
    if variant.pooling is None:
        features = {"token_embeddings": hidden_BTD, "attention_mask": mask_BT, "pool_mask": marks_BT}
        features = model[1](features)
    elif variant.pooling == "first":
        features = {"sentence_embedding": hidden_BTD[:, 0]}
    else:
        features = {"sentence_embedding": POOL[variant.pooling](hidden_BTD, mask_BT).to(hidden_BTD.dtype)}
    for module in list(model)[2:]:
        if variant.dense is not False or not isinstance(module, Dense):
            features = module(features)
    vector: Vectors = features["sentence_embedding"][0].float().cpu().numpy()
    return vector


def _read(
    model: SentenceTransformer, text: str, prompt: str, side: Side, variant: Variant
) -> tuple[list[int], list[int]]:
    """Return ids and marks of a text as the variant has it read."""
    if variant.text is not None:
        text = text.strip() if variant.text == "stripped" else text.lower()
    if variant.reading is None:
        return tokens(model, text, prompt, side)
    ids = (_bare if variant.reading == "bare" else _chat)(model, text)
    ends_alone = isinstance(model[1], SpanPooling) and model[1].pooling_mode == "last"
    return ids, [0] * (len(ids) - 1) + [1] if ends_alone else [1] * len(ids)


def _bare(model: SentenceTransformer, text: str) -> list[int]:
    """Return the ids of a text alone, between the BOS and the EOS that the model's sequences have."""
    own, _ = tokens(model, "a", "", "query")
    baked = template_of(model) is not None and not fills_slots(model)  # whose own space before a text is the template's
    (ids,) = PieceTokenizer(model.tokenizer).texts([text], first=not baked)
    ids = ids[: model.max_seq_length]
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    return [bos] * (own[0] == bos) + ids + [eos] * (own[-1] == eos) or [eos]


def _chat(model: SentenceTransformer, text: str) -> list[int]:
    """Return the ids of a text as a user's turn; ConfigError where the tokenizer has no chat template."""
    if not getattr(model.tokenizer, "chat_template", None):
        raise ConfigError("The tokenizer has no chat template.")
    rendered = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=True, add_generation_prompt=True, return_dict=True
    )
    return list(rendered["input_ids"])


def _with_ends(
    model: SentenceTransformer, ids: list[int], marks: list[int], variant: Variant
) -> tuple[list[int], list[int]]:
    """Return ids and marks with BOS and EOS put on or taken off."""
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    if variant.eos is False and ids[-1:] == [eos]:
        ids, marks = ids[:-1], marks[:-1]
        if not any(marks):  # the EOS was all that was pooled: a tool would pool what is last then
            marks = [*marks[:-1], 1]
    elif variant.eos is True and ids[-1:] != [eos]:
        ids, marks = [*ids, eos], [*marks, 1]
    if variant.bos is False and ids[:1] == [bos]:
        ids, marks = ids[1:], marks[1:]
    while variant.bos and ids[: int(variant.bos)] != [bos] * int(variant.bos):
        first = 0 if isinstance(model[1], SpanPooling) else 1
        ids, marks = [bos, *ids], [first, *marks]
    return ids, marks


@contextmanager
def _cut(model: SentenceTransformer, most: int | None) -> Iterator[None]:
    before = model.max_seq_length
    if most is not None:
        model.max_seq_length = most
    try:
        yield
    finally:
        model.max_seq_length = before


@contextmanager
def in_dtype(model: SentenceTransformer, dtype: torch.dtype | None) -> Iterator[None]:
    """Let the model compute in another dtype; its own weights and buffers are kept aside and put back."""
    if dtype is None:
        yield
        return
    weights = {name: parameter.data for name, parameter in model.named_parameters()}
    buffers = [(part, name, buffer) for part in model.modules() for name, buffer in part.named_buffers(recurse=False)]
    model.to(dtype)
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.data = weights[name]
        for part, name, buffer in buffers:  # rotary frequencies, which a 16-bit dtype would round for good
            setattr(part, name, buffer)
