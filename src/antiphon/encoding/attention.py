"""Attention over packed rows, as transformers' attention interface calls it, and the masks of such rows.

R rows, W their width, P tokens of the shared prefix, H heads, K key heads, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from antiphon.errors import ModelError

NAME = "antiphon"


def register() -> None:
    """Make the attention known to transformers under its name; again does no harm."""
    AttentionInterface.register(NAME, attend)


def attend(  # noqa: PLR0913  (the signature that transformers calls)
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention (R, W, H, d) of queries (R, H, W, d) over keys (R, K, P + W, d), which are not repeated.

    Without a mask the texts stand alone: causal if the model is. Raises ModelError for attention sinks.
    """
    if s_aux is not None:
        raise ModelError("attention with sinks is not known here")
    if softcap is not None:
        return _capped(query, key, value, attention_mask, scaling, softcap, is_causal is not False), None
    causal = attention_mask is None and is_causal is not False and query.shape[2] > 1
    out = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        scale=scaling,
        is_causal=causal,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None


def _capped(  # noqa: PLR0913  (what attention takes)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
    causal: bool,
) -> torch.Tensor:
    """Return attention with capped scores (Gemma 2), by matrix products in the order of transformers' eager one."""
    rows, heads, width, size = query.shape
    groups = heads // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * (size**-0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None and causal and width > 1:
        mask = torch.ones(width, key.shape[2], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous()


def packed_mask(  # noqa: PLR0913  (what a mask depends on)
    text_RW: torch.Tensor,
    position_RW: torch.Tensor,
    *,
    prefix: int,
    causal: bool,
    window: int | None = None,
    inclusive: bool = True,
) -> torch.Tensor:
    """Return which keys each token sees, (R, 1, W, P + W) bool: its own text and the prefix, and no other text.

    `text_RW` numbers the texts, -1 is padding, which sees itself only so that no row of the softmax is empty.
    `window` is that of sliding-window layers, counted in positions as transformers counts it: `inclusive` says whether
    a bidirectional one reaches the token that is exactly so far away.
    """
    rows = len(text_RW)
    padding_R1 = torch.full((rows, prefix), -2, device=text_RW.device)
    keys = torch.arange(prefix, device=text_RW.device).expand(rows, prefix)
    key_text_RK = torch.cat([padding_R1, text_RW], dim=1)
    key_position_RK = torch.cat([keys, position_RW], dim=1)
    apart_RWK = position_RW[:, :, None] - key_position_RK[:, None, :]
    same_RWK = text_RW[:, :, None] == key_text_RK[:, None, :]
    seen_RWK = same_RWK | ((key_text_RK == -2)[:, None, :] & (text_RW >= 0)[:, :, None])
    if causal:
        seen_RWK &= apart_RWK >= 0
    if window is not None:
        seen_RWK &= (apart_RWK < window) if causal else (apart_RWK.abs() < window + inclusive)
    return seen_RWK[:, None]
