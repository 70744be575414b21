"""Gated feed-forward layers whose swish and multiplication are one pass over bfloat16, on a processor with AVX-512.

D width of the states, I of what lies between.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from antiphon import compat
from antiphon.encoding.kernels.native.library import VECTORS, NativeSource, places
from antiphon.encoding.kernels.tiled_products import TiledLinear, tiled_gate

SOURCE = NativeSource("gated", VECTORS)
PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""The children of such a layer, as the families of models call them."""
_TRIED = 4
"""Tokens by which a layer is told."""
_NEAR = 2.0**-5
"""How far one rounding instead of two may be from their largest number."""


@torch.library.custom_op("antiphon::gated", mutates_args=())
def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return swish of the gate times up, both (..., I) in bfloat16."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    threads = ctypes.c_int(torch.get_num_threads())
    SOURCE.library.antiphon_gated(*places(gate, up, out), ctypes.c_int64(gate.numel()), threads)
    return out


@gated.register_fake
def _(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(gate, memory_format=torch.contiguous_format)


class GatedLayer(nn.Module):
    """A gated feed-forward layer over the same products."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def __init__(self, children: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        for name in PARTS[:3]:
            self.add_module(name, children[name])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the layer's output (..., D) for states (..., D)."""
        out: torch.Tensor = self.down_proj(self._between(states))
        return out

    def _between(self, states: torch.Tensor) -> torch.Tensor:
        """Return swish of the gate times up (..., I), in one pass with the products where the tiles make them."""
        gate, up = self.gate_proj, self.up_proj
        if isinstance(gate, TiledLinear) and isinstance(up, TiledLinear) and gate.bias is None and up.bias is None:
            both: torch.Tensor = tiled_gate(states, gate.weight, up.weight, gate.outputs)
            return both
        between: torch.Tensor = gated(gate(states), up(states))
        return between


def is_gated(layer: nn.Module) -> bool:
    """Return whether a layer is gated by swish in bfloat16 and nothing else, by its parts and by some numbers.

    A layer that multiplies by a constant as well has the same parts and other numbers.
    """
    children = compat.children_of(layer)
    if set(children) != set(PARTS) or None in children.values():
        return False
    weight = getattr(children["gate_proj"], "weight", None)
    if not torch.is_tensor(weight) or weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return False
    if SOURCE.missing() is not None:  # asked last, since it may build
        return False
    gate, up, down, _ = (layer.get_submodule(name) for name in PARTS)
    states = torch.linspace(-2, 2, _TRIED * weight.shape[1], dtype=weight.dtype).view(_TRIED, -1)
    with torch.inference_mode():
        theirs = layer(states)
        if not torch.equal(theirs, down(F.silu(gate(states)) * up(states))):
            return False
        return bool((GatedLayer(children)(states) - theirs).abs().max() <= _NEAR * theirs.abs().max())
