"""Attention by plain matrix products: PyTorch's own call on a CPU does not use the processor's 16-bit products.

R rows, W their width, P tokens of the shared prefix, H heads, K key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from antiphon.encoding.masks import additive
from antiphon.model.compiling import compiled

BLOCK = 64
"""Queries of a row that are multiplied at a time: the keys behind them are left out."""
SCORES = 1 << 20
"""Scores that are held at a time, about: more would leave the processor's cache."""


@torch.library.custom_op("antiphon::products", mutates_args=())
def products(  # noqa: PLR0913  (an operator's parameters are tensors and plain values)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    softcap: float | None,
    causal: bool,
    fused: bool,
) -> torch.Tensor:
    """Return attention (R, W, H, d) of queries (R, H, W, d) over keys (R, K, P + W, d), a block of queries at a time.

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
            out[part, start:end] = multiplied(
                query[part, :, start:end],
                key[part, :, :seen],
                value[part, :, :seen],
                mask[part, :, start:end, :seen],
                scaling,
                softcap,
                fused=fused,
            )
    return out


@products.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: object) -> torch.Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


def multiplied(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    *,
    fused: bool = False,
) -> torch.Tensor:
    """Return attention (R, W, H, d) by two products; heads that share keys are folded into one product's rows."""
    rows, heads, width, size = query.shape
    shared = key.shape[1]
    scores = (query * scaling).reshape(rows, shared, -1, size) @ key.transpose(2, 3)
    scores = scores.view(rows, shared, heads // shared, width, -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = _weights(scores, None if mask is None else additive(mask, scores.dtype)[:, :, None], fused=fused)
    weights = weights.view(rows, shared, -1, key.shape[2])
    return (weights @ value).view(rows, heads, width, -1).transpose(1, 2)


def _weights(scores: torch.Tensor, mask: torch.Tensor | None, *, fused: bool) -> torch.Tensor:
    """Return the softmax over keys of scores (R, K, H / K, W, P + W), their mask added."""
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

    return compiled(weights)
