"""Attention over packed rows, as transformers' attention interface calls it, and the masks of such rows.

R rows, W their width, P tokens of the shared prefix, H heads, K key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from antiphon.errors import ModelError

PREFIX = "antiphon-"
_LIBRARY = "antiphon"
RECOMPILED = 64
"""Variants of a piece of code that are compiled at most, in one process; others run as they are."""
BLOCK = 64
"""Queries of a row that are multiplied at a time: the keys behind them are left out."""
SCORES = 1 << 20
"""Scores that are held at a time, about: more would leave the processor's cache."""


def register() -> None:
    """Make the calls known to transformers under their names; again does no harm."""
    for name, call in CALLS.items():
        AttentionInterface.register(PREFIX + name, call)


def attend_sdpa(  # noqa: PLR0913  (the signature that transformers calls)
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

    Without a mask the texts stand alone: causal if the model is. Scores with a cap are multiplied out, which PyTorch's
    own call cannot do. Raises ModelError for attention sinks.
    """
    if s_aux is not None:
        raise ModelError("attention with sinks is not known here")
    causal = attention_mask is None and is_causal is not False and query.shape[2] > 1
    if softcap is not None:
        mask = _triangle(query, key) if causal else attention_mask
        return _multiplied(query, key, value, mask, scaling, softcap), None
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


def attend_matmul(  # noqa: PLR0913  (the signature that transformers calls)
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    fused: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the same by plain matrix products, a block of queries and some rows at a time.

    PyTorch's own call on a CPU does not use the processor's 16-bit products; these do. A causal block leaves out the
    keys behind it. `fused` compiles mask and softmax into one pass.
    """
    width = query.shape[2]
    causal = is_causal is not False
    if attention_mask is None or kwargs.get("s_aux") is not None or width != key.shape[2] - _before(query, key):
        return attend_sdpa(
            module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, softcap=softcap, **kwargs
        )
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return _products(query, key, value, attention_mask, scale, softcap, causal, fused), None


@torch.library.custom_op(f"{_LIBRARY}::products", mutates_args=())
def _products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    softcap: float | None,
    causal: bool,
    fused: bool,
) -> torch.Tensor:
    """Return attention (R, W, H, d), a block of queries and some rows at a time.

    An operator of its own, so that a compiled layer calls its loop as it is.
    """
    rows, heads, width, _ = query.shape
    out = query.new_empty(rows, width, heads, value.shape[3])
    before = key.shape[2] - width
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        seen = before + end if causal else key.shape[2]
        step = max(1, SCORES // (heads * (end - start) * seen))
        for row in range(0, rows, step):
            part = slice(row, row + step)
            out[part, start:end] = _multiplied(
                query[part, :, start:end],
                key[part, :, :seen],
                value[part, :, :seen],
                mask[part, :, start:end, :seen],
                scaling,
                softcap,
                fused=fused,
            )
    return out


@_products.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: object) -> torch.Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


CALLS = {"sdpa": attend_sdpa, "matmul": attend_matmul, "matmul-fused": partial(attend_matmul, fused=True)}
"""The attention calls by name."""
FUSED = {"matmul": "matmul-fused"}
"""What a call becomes beside compiled layers."""


def fastest(device: torch.device, dtype: torch.dtype) -> str:
    """Return the name of the faster call: products where a CPU has 16 bits, which PyTorch's call there does not use.

    By type and not by the clock, so that the same texts give the same bits in every run.
    """
    return "matmul" if device.type == "cpu" and dtype == torch.bfloat16 else "sdpa"


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask of what is seen as what is added to scores; one that is so already as it is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _before(query: torch.Tensor, key: torch.Tensor) -> int:
    return max(0, key.shape[2] - query.shape[2])


def _triangle(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the causal mask of one text alone, (1, 1, W, W)."""
    ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    return ones.tril()[None, None]


def _multiplied(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    *,
    fused: bool = False,
) -> torch.Tensor:
    """Return attention (R, W, H, d) by two products; heads that share keys are folded into one product's rows."""
    rows, heads, width, size = query.shape
    shared = key.shape[1]
    query = query * (size**-0.5 if scaling is None else scaling)
    scores = query.reshape(rows, shared, -1, size) @ key.transpose(2, 3)
    scores = scores.view(rows, shared, heads // shared, width, -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = _weights(scores, None if mask is None else additive(mask, scores.dtype)[:, :, None], fused=fused)
    weights = weights.view(rows, shared, -1, key.shape[2])
    return (weights @ value).view(rows, heads, width, -1).transpose(1, 2)


def _weights(scores: torch.Tensor, mask: torch.Tensor | None, *, fused: bool) -> torch.Tensor:
    """Return the softmax of scores over keys, (R, K, H / K, W, P + W), their mask added."""
    if mask is None:
        return scores.softmax(dim=-1)
    # a size of 1 would be compiled anew
    if fused and min(len(scores), *scores.shape[3:]) > 1:
        return _fused()(scores, mask)
    return scores.add_(mask).softmax(dim=-1)


@cache
def _fused() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return mask and softmax compiled for any sizes: one pass over the scores instead of two."""

    def weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (scores + mask).softmax(dim=-1)

    compiled: Callable[..., torch.Tensor] = torch.compile(weights, dynamic=True, recompile_limit=RECOMPILED)  # type: ignore[call-overload]
    return compiled


def packed_mask(
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
