"""The attention masks of packed rows: what each token sees.

R rows, W their width, P tokens of a prefix that is kept before the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PretrainedConfig

PADDING, PREFIX = -1, -2
"""Instead of a text's number: where there is no text, and at tokens with which every text of the row begins."""


@dataclass(frozen=True)
class Attention:
    """Which tokens the layers of a decoder see, as its configuration says."""

    causal: bool
    window: int | None
    """The width of sliding-window layers; None where there are none."""
    inclusive: bool
    """Whether a bidirectional window counts its last token: transformers does, Gemma's own switch does not."""
    kinds: frozenset[str]
    """The kinds of layers, for a model that takes one mask for each; empty where it takes one for all."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> Attention:
        """Read the configuration of a decoder of text."""
        kinds = frozenset(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        switched_off = getattr(config, "use_sliding_window", True) is False
        slides = "sliding_attention" in kinds if kinds else not switched_off
        inclusive = getattr(config, "is_causal", True) is False
        causal = not inclusive and not getattr(config, "use_bidirectional_attention", False)
        return cls(causal, window if slides else None, inclusive, kinds)

    def reach(self, *, sliding: bool) -> tuple[int, int]:
        """Return how many tokens before and after itself a token sees in a layer, -1 is all."""
        if self.window is None or not sliding:
            return (-1, 0) if self.causal else (-1, -1)
        return (self.window - 1, 0) if self.causal else (self.window - 1 + self.inclusive,) * 2

    def masks(
        self,
        text_RW: torch.Tensor,
        position_RW: torch.Tensor,
        *,
        prefix: int = 0,
        alone: bool = False,
        added: torch.dtype | None = None,
        multiple: int = 1,
        device: torch.device | None = None,
    ) -> Any:
        """Return the mask as the model takes it, one or one for each kind of layer, from tables on any device.

        `alone` says that a plain mask is not needed, which is None then; `added` asks for what is added to scores, of
        a number of keys that is a multiple of `multiple`: those behind the row's own are seen by no token.
        """
        window = None if self.window is None or int(position_RW.max()) < self.window else self.window
        text_RW, position_RW = moved(text_RW, device), moved(position_RW, device)

        def mask(window: int | None) -> torch.Tensor | None:
            if alone and window is None:
                return None
            seen = packed_mask(
                text_RW, position_RW, prefix=prefix, causal=self.causal, window=window, inclusive=self.inclusive
            )
            return seen if added is None else additive(F.pad(seen, (0, -seen.shape[-1] % multiple)), added)

        if not self.kinds:
            return mask(window)
        whole = mask(None)
        sliding = whole if window is None else mask(window)
        return {"full_attention": whole, "sliding_attention": sliding}


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

    `text_RW` numbers the texts; PADDING sees itself only, so that no row of the softmax is empty; PREFIX is a beginning
    that stands once in its row, and which all texts of the row see as they see the one before the rows.
    `window` is that of sliding-window layers, counted in positions as transformers counts it: `inclusive` says whether
    a bidirectional one reaches the token that is exactly so far away.
    """
    rows = len(text_RW)
    padding_R1 = torch.full((rows, prefix), PREFIX, device=text_RW.device)
    keys = torch.arange(prefix, device=text_RW.device).expand(rows, prefix)
    key_text_RK = torch.cat([padding_R1, text_RW], dim=1)
    key_position_RK = torch.cat([keys, position_RW], dim=1)
    apart_RWK = position_RW[:, :, None] - key_position_RK[:, None, :]
    same_RWK = text_RW[:, :, None] == key_text_RK[:, None, :]
    seen_RWK = same_RWK | ((key_text_RK == PREFIX)[:, None, :] & (text_RW >= 0)[:, :, None])
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


def moved(tensor: torch.Tensor, device: torch.device | None) -> torch.Tensor:
    """Return a tensor on a device; a CPU's comes to a GPU from pinned memory, so that nobody waits for it."""
    if device is not None and device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
