"""The attention calls over packed rows, as transformers' attention interface calls them.

R rows, W their width, P tokens of the shared prefix, H heads, K key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from antiphon.encoding.kernels import varlen
from antiphon.encoding.kernels.filled_up import filled_up, in_blocks
from antiphon.encoding.kernels.products import multiplied, products
from antiphon.encoding.masks import additive
from antiphon.errors import ModelError

PREFIX = "antiphon-"


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

    Without a mask the texts stand alone: causal if the model is. A mask may be of more keys than there are, see
    `in_blocks`. Scores with a cap are multiplied out, which PyTorch's own call cannot do. Raises ModelError for
    attention sinks.
    """
    _without_sinks(s_aux)
    causal = attention_mask is None and is_causal is not False and query.shape[2] > 1
    if softcap is not None:
        mask = _triangle(query, key) if causal else attention_mask
        mask = None if mask is None else mask[..., : key.shape[2]]
        return multiplied(query, key, value, mask, _scale(scaling, query), softcap), None
    if attention_mask is not None and in_blocks(query.device, query.dtype):
        scale, causal = _scale(scaling, query), is_causal is not False
        return filled_up(query, key, value, additive(attention_mask, query.dtype), scale, causal), None
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


def attend_matmul(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    fused: bool = False,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Return the same by plain matrix products, a block of queries and some rows at a time.

    A causal block leaves out the keys behind it. `fused` compiles mask and softmax into one pass.
    """
    before = max(0, key.shape[2] - query.shape[2])
    if attention_mask is None or given.get("s_aux") is not None or query.shape[2] != key.shape[2] - before:
        return attend_sdpa(module, query, key, value, attention_mask, **given)
    scale, causal = _scale(given.get("scaling"), query), given.get("is_causal") is not False
    return products(query, key, value, attention_mask, scale, given.get("softcap"), causal, fused), None


def attend_varlen(  # noqa: PLR0913  (the signature that transformers calls)
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    spans: varlen.Spans,
    reach: tuple[int, int],
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention (1, T, H, d) over texts laid end to end. Raises ModelError for capped scores and sinks."""
    _without_sinks(s_aux)
    if softcap is not None:
        raise ModelError("the kernel for texts of any lengths has no cap of scores")
    return varlen.attend(query, key, value, spans, reach, scaling), None


CALLS: dict[str, Callable[..., tuple[torch.Tensor, None]]] = {
    "sdpa": attend_sdpa,
    "matmul": attend_matmul,
    "matmul-fused": partial(attend_matmul, fused=True),
    "varlen": attend_varlen,
}
"""The attention calls by name."""
FUSED = {"matmul": "matmul-fused"}
"""What a call becomes beside compiled layers."""
FLAT = {"varlen"}
"""The calls that take one row of texts end to end and no mask."""


def candidates(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Return the names of the calls for a device and dtype, one that always works last.

    The fastest comes first, but on a CPU in bfloat16, where that depends on the processor: see `attention_choice.py`.
    """
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        return "varlen", "sdpa"
    if device.type == "cpu" and dtype == torch.bfloat16:
        return (*(["varlen"] if varlen.kernel_for(device, dtype) == "tiles" else []), "matmul", "sdpa")
    return ("varlen", "sdpa") if device.type == "cpu" else ("sdpa",)


def _without_sinks(sinks: torch.Tensor | None) -> None:
    if sinks is not None:
        raise ModelError("attention with sinks is not known here")


def _scale(scaling: float | None, query: torch.Tensor) -> float:
    return float(query.shape[3] ** -0.5) if scaling is None else scaling


def _triangle(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the causal mask of one text alone, (1, 1, W, W)."""
    ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    return ones.tril()[None, None]
