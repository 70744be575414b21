"""PyTorch's own attention call over keys that are filled up to whole blocks of a processor's 16-bit products.

R rows, W their width, Y keys and G of them with the filling, H heads, K key heads, d head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

KEYS = 32
"""Keys of a block: on AMX 170 keys take 1.4 times as long as 192."""
QUERIES = 128
"""Queries that are asked at a time in long rows: the keys behind them are left out."""


def in_blocks(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the call multiplies 16 bits in blocks, so that it is faster for whole ones."""
    return device.type == "cpu" and dtype == torch.bfloat16


@torch.library.custom_op("antiphon::filled_up", mutates_args=())
def filled_up(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float, causal: bool
) -> torch.Tensor:
    """Return attention (R, W, H, d) of queries (R, H, W, d) over keys (R, K, Y, d), by an added mask (R, 1, W, G or Y).

    An operator of its own: compiled layers would be compiled once more for a filling of nothing.
    """
    rows, heads, width, _ = query.shape
    before, keys = key.shape[2] - width, mask.shape[-1]
    if missing := keys - key.shape[2]:
        key, value = F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))

    def asked(start: int, end: int, seen: int) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, :seen],
            value[:, :, :seen],
            attn_mask=mask[:, :, start:end, :seen],
            scale=scaling,
            enable_gqa=heads != key.shape[1],
        ).transpose(1, 2)

    if not causal or width < 2 * QUERIES:
        return asked(0, width, keys).contiguous()
    out = query.new_empty(rows, width, heads, value.shape[3])
    for start in range(0, width, QUERIES):
        end = min(start + QUERIES, width)
        out[:, start:end] = asked(start, end, min(keys, -(-(before + end) // KEYS) * KEYS))
    return out


@filled_up.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: object) -> torch.Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
