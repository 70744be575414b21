"""A calibrated model: a stock `Dense` behind the pooling, and the record of what it was fitted on.

The map is one for queries and documents. D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Normalize

from antiphon import compat
from antiphon.errors import CheckpointError, ModelError
from antiphon.model.affine_maps import AffineMap, Doubles
from antiphon.model.weights import head_tensors
from antiphon.modules import SpanPooling


@dataclass(frozen=True)
class Calibration:
    """What a map was fitted by and on."""

    method: str
    texts: str
    """Where they came from."""
    rows: int
    digest: str
    """SHA-256 of the texts in order, each behind its length in bytes."""
    side: str
    module: int
    """The number of its module in the model."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Calibration:
        """Read a record. Raises TypeError or ValueError for what is none."""
        if set(raw) != {field.name for field in fields(cls)}:
            raise ValueError(f"calibration is {dict(raw)!r:.80}")
        return cls(**raw)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON file."""
        return asdict(self)


def calibration_of(model: SentenceTransformer) -> Calibration | None:
    """Return the record of a calibrated model, None for any other."""
    found = [getattr(module, "calibration", None) for module in model]
    return next((one for one in found if isinstance(one, Calibration)), None)


def uncalibrated(model: SentenceTransformer) -> SentenceTransformer:
    """Return a model up to where a calibration stands or would stand, its modules shared: raw vectors."""
    modules = list(model)
    out = _with_modules(model, modules[: place_in(model)])
    out.truncate_dim = None
    return out


def place_in(model: SentenceTransformer) -> int:
    """Return the number of the module that a calibration is or would be: before a closing Normalize, else the end."""
    known = calibration_of(model)
    if known is not None:
        return known.module
    modules = list(model)
    return len(modules) - isinstance(modules[-1], Normalize)


def calibrated(model: SentenceTransformer, by: AffineMap, record: Calibration) -> SentenceTransformer:
    """Return the model with a map behind its pooling, in place of an earlier calibration; other modules are shared."""
    modules = list(model)
    rest = modules[record.module :]
    state = {
        "linear.weight": torch.tensor(by.weight, dtype=torch.float32),
        "linear.bias": torch.tensor(by.bias, dtype=torch.float32),
    }
    dense = Dense(
        by.weight.shape[1],
        by.weight.shape[0],
        bias=True,
        activation_function=None,
        init_weight=state["linear.weight"],
        init_bias=state["linear.bias"],
    ).requires_grad_(False)
    modules = [*modules[: record.module], dense, *(rest[1:] if calibration_of(model) is not None else rest)]
    out = _with_modules(model, modules)
    if _in_float32(modules):
        dense.to(torch.float32).load_state_dict(state)
    dense.calibration = record
    return out


def restore(model: SentenceTransformer, raw: Mapping[str, Any], source: str, folders: Sequence[str]) -> None:
    """Put the record of a loaded folder back on its module; `folders` are those of the modules inside `source`.

    Raises CheckpointError where the record names no Dense.
    """
    try:
        record = Calibration.from_dict(raw)
        dense = list(model)[record.module]
    except (TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"The calibration in antiphon.json of {source} is no record of one ({error}).") from error
    if not isinstance(dense, Dense):
        raise CheckpointError(f"The calibration in antiphon.json of {source} names no Dense; take a complete copy.")
    if _in_float32(list(model)) and dense.linear.weight.dtype != torch.float32:
        state = Dense.load(
            source, subfolder=folders[record.module]
        ).state_dict()  # sentence-transformers rounded it with the decoder
        dense.to(torch.float32).load_state_dict(state)
    dense.calibration = record


def head_of(model: SentenceTransformer) -> Doubles:
    """Return the vocabulary head (V, D) of the language model in an embedder."""
    decoder = model[0].model
    if getattr(model[0], "head", None) is not None:
        weight = model[0].head.weight
    elif decoder.config.get_text_config().tie_word_embeddings:
        weight = decoder.get_input_embeddings().weight
    else:
        weight = head_tensors(compat.source_of(decoder.config))["weight"]
    return np.asarray(weight.detach().cpu().double().numpy(), dtype=np.float64)


def _in_float32(modules: list[Module]) -> bool:
    """Return whether a map takes vectors in fp32 whatever the decoder's dtype is: those of our own pooling."""
    return isinstance(modules[1], SpanPooling)


def _with_modules(model: SentenceTransformer, modules: list[Module]) -> SentenceTransformer:
    """Return a model of these modules with the prompts and settings of another."""
    if len(modules) < 2:
        raise ModelError("A calibration stands behind a pooling and this model has none.")
    out = SentenceTransformer(
        modules=modules,
        prompts=dict(model.prompts or {}),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
        device=str(model.device),
    )
    return out.train(model.training)
