"""Bidirectional attention on a causal decoder, by `config.is_causal = False`, and the proof that it acts.

Some families ignore the switch without a word (StableLM and Nemotron among them), so every model is asked: does a later
token change an earlier state? Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from antiphon import compat
from antiphon.errors import ModelError
from antiphon.model.evaluation_mode import evaluation_mode

_TOKENS = 6
_SAME = 1e-6


def is_bidirectional(model: PreTrainedModel) -> bool:
    """Return whether the configuration asks for bidirectional attention."""
    return getattr(model.config, "is_causal", True) is False


def make_bidirectional(model: PreTrainedModel) -> None:
    """Switch the causal mask off; saved in config.json, so it survives a reload."""
    model.config.is_causal = False


@torch.inference_mode()
def check(model: PreTrainedModel) -> None:
    """Raise a ModelError unless attention is what the configuration says, with no mask, a full one and a padded one."""
    wanted = is_bidirectional(model)
    with evaluation_mode(model):
        looks_ahead = [_sees_later_token(model, mask) for mask in _masks(model.device)]
    kind = model.config.model_type
    if wanted and not all(looks_ahead):
        raise ModelError(
            f"{kind} stays causal although config.is_causal is False, with attention "
            f"{compat.attention_of(model.config)!r}; "
            'load it with attn_implementation="eager" or without bidirectional=True.'
        )
    if not wanted and any(looks_ahead):
        raise ModelError(
            f"{kind} is no causal language model: a later token changes an earlier state; "
            "load it with plain sentence-transformers, or pass bidirectional=True if that is meant."
        )


def _masks(device: torch.device) -> list[torch.Tensor | None]:
    full = torch.ones(1, _TOKENS, dtype=torch.long, device=device)
    padded = full.clone()
    padded[0, 0] = 0
    return [None, full, padded]


def _sees_later_token(model: PreTrainedModel, mask_BT: torch.Tensor | None) -> bool:
    """Return whether the state at position 1 moves when only the last token changes."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids_BT = (torch.arange(_TOKENS, device=model.device) * 37 + 11)[None] % vocabulary
    changed_BT = ids_BT.clone()
    changed_BT[0, -1] = (changed_BT[0, -1] + vocabulary // 2 + 1) % vocabulary
    states = [
        model(input_ids=ids, attention_mask=mask_BT, use_cache=False).last_hidden_state[0, 1].float()
        for ids in (ids_BT, changed_BT)
    ]
    return bool((states[0] - states[1]).abs().max() > _SAME * states[0].abs().max().clamp(min=1e-3))
