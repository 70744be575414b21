"""Attention by plain matrix products that learns: heads that share keys are rows of one product, forward and backward.

No key is repeated for the heads that share it, a product sums over them on the way back, and each gradient is written
as it is read next, which autograd's own way back through a transposed key is not.
R rows, W their width, H heads, K key heads, G = H / K, N = R x K, d head width, v that of values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

NAME = "antiphon-folded"
"""What transformers knows it by."""


def register() -> None:
    """Make the call known to transformers under its name; again does no harm."""
    AttentionInterface.register(NAME, attend_folded)


def attend_folded(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention (R, W, H, v) of queries (R, H, W, d) over keys (R, K, W, d), in autocast's dtype or the values'.

    The mask (R, 1, W, W) is added to the scores. With a bias of positions PyTorch's own call is taken.
    """
    if given.get("position_bias") is not None:
        mask = attention_mask.to(query.dtype)
        own = AttentionInterface()["sdpa"]
        out, _ = own(module, query, key, value, mask, scaling=scaling, dropout=dropout, **given)
        return out, None
    rows, heads, width, size = query.shape
    shared, device = key.shape[1], query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    found: torch.Tensor = _Folded.apply(  # type: ignore[no-untyped-call]
        query.to(dtype).reshape(rows * shared, -1, size),
        key.to(dtype).reshape(rows * shared, width, size),
        value.to(dtype).reshape(rows * shared, width, -1),
        attention_mask,
        float(size**-0.5) if scaling is None else scaling,
        dropout,
    )
    return found.view(rows, heads, width, -1).transpose(1, 2).contiguous(), None


class _Folded(torch.autograd.Function):
    """Softmax of scaled products of queries (N, G x W, d) and keys (N, W, d), times values (N, W, v)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        scores = torch.bmm(query, key.transpose(1, 2))
        width = key.shape[1]
        masked = _exact(scores.view(len(mask), -1, width, width)) * scaling + mask
        weights = masked.softmax(dim=-1).to(value.dtype).view_as(scores)
        kept = F.dropout(weights, dropout) if dropout else weights
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.scaling = scaling
        return torch.bmm(kept, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, kept = ctx.saved_tensors
        weighed = _exact(torch.bmm(slope, value.transpose(1, 2))) * kept
        # rounded weights do not sum to 1, and what keys have in common would make much of the rest
        share = weighed.sum(dim=-1, keepdim=True) / _exact(weights).sum(dim=-1, keepdim=True)
        of_scores = ((weighed - weights * share) * ctx.scaling).to(query.dtype)
        return (
            torch.bmm(of_scores, key),
            torch.bmm(of_scores.transpose(1, 2), query),
            torch.bmm(kept.transpose(1, 2), slope),
            None,
            None,
            None,
        )


def _exact(numbers: torch.Tensor) -> torch.Tensor:
    """Return numbers in at least float32."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
