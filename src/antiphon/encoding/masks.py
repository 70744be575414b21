"""The masks of packed rows: what each token sees.

R rows, W their width, P tokens of the shared prefix.
"""

from __future__ import annotations

import torch


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


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask of what is seen as what is added to scores; one that is so already as it is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
