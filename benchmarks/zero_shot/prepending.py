"""Token Prepending (arXiv 2412.11556): the state of a sequence's last token, put before the text in the first layers.

A token of the frame that stands right before the text takes, at the input of each early layer but the first, the state
that the layer before gave the last token, so that every token of the text sees what came after it. No model code is
changed: pre-hooks of the decoder's layers do it, and only for those who ask for them here; the Encoder knows nothing of
it. B batch, T tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SHARE = 0.25
"""Of the layers, from the second on; the paper's is 7 of 32."""


class TokenPrepending:
    """Hooks on a decoder's layers; `lengths_B`, set before each forward of right-padded rows, says where they end."""

    def __init__(self, layers: nn.ModuleList, place: int, *, share: float = SHARE) -> None:
        """`place` is the index of the token before the text."""
        self.place = place
        self.lengths_B: torch.Tensor | None = None
        self.early = max(1, round(share * len(layers)))
        self._handles = [
            layer.register_forward_pre_hook(self._put, with_kwargs=True) for layer in layers[1 : 1 + self.early]
        ]

    def _put(self, layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden_BTD, *others = given
        assert self.lengths_B is not None
        moved_BTD = hidden_BTD.clone()
        moved_BTD[:, self.place] = hidden_BTD[torch.arange(len(hidden_BTD)), self.lengths_B - 1]
        return (moved_BTD, *others), named

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
