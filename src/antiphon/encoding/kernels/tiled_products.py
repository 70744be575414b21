"""Products by weights that are laid out once for a processor's tiles of 16 bits (AMX).

M tokens, I inputs, O outputs.
"""

from __future__ import annotations

import ctypes

import torch
from torch import nn

from antiphon.encoding.kernels.native.library import TILES, NativeSource, places

SOURCE = NativeSource("product", TILES)
BLOCK = 32
"""Inputs and outputs that the tiles take at a time."""
DEEPEST = 2560
"""Inputs beyond which a chunk's states leave the cache, so that oneDNN's products are as fast or faster."""


def is_for_tiles(linear: nn.Linear) -> bool:
    """Return whether the tiles multiply a layer's numbers here; the first such layer builds what does."""
    narrow = all(own.dtype == torch.bfloat16 and own.device.type == "cpu" for own in linear.parameters())
    return narrow and SOURCE.missing() is None


def fits(linear: nn.Linear) -> bool:
    """Return whether a layer is for the tiles and of a shape that our products take and are faster for."""
    whole = not any(size % BLOCK for size in linear.weight.shape) and linear.in_features <= DEEPEST
    return whole and is_for_tiles(linear)


def laid_out(weight_OI: torch.Tensor) -> torch.Tensor:
    """Return weights as the tiles read them, (O x I / 2,) pairs."""
    weight_OI = weight_OI.contiguous()
    out = torch.empty(weight_OI.numel() // 2, dtype=torch.int32)
    SOURCE.library.antiphon_lay_out(*places(weight_OI, out), *map(ctypes.c_int64, weight_OI.shape))
    return out


@torch.library.custom_op("antiphon::tiled_product", mutates_args=())
def tiled_product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, outputs: int) -> torch.Tensor:
    """Return the products (..., O) of states (..., I) by weights that were laid out, rounded once."""
    return _multiplied(states, weight, None, bias, outputs)


@torch.library.custom_op("antiphon::tiled_gate", mutates_args=())
def tiled_gate(states: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, outputs: int) -> torch.Tensor:
    """Return swish of the products by one weight times those by another, (..., O), rounded once."""
    return _multiplied(states, gate, up, None, outputs)


@tiled_product.register_fake
@tiled_gate.register_fake
def _(states: torch.Tensor, weight: torch.Tensor, other: torch.Tensor | None, outputs: int) -> torch.Tensor:
    return states.new_empty(*states.shape[:-1], outputs)


class TiledLinear(nn.Module):
    """A linear layer whose weights lie as the tiles read them: the same sums, the weights held twice."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.outputs = linear.out_features
        self.register_buffer("weight", laid_out(linear.weight.detach()), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the products of states (..., I), (..., O)."""
        product: torch.Tensor = tiled_product(states, self.weight, self.bias, self.outputs)
        return product


def _multiplied(
    states: torch.Tensor, weight: torch.Tensor, other: torch.Tensor | None, bias: torch.Tensor | None, outputs: int
) -> torch.Tensor:
    """Return what the C function makes of these."""
    states = states.contiguous()
    inputs = states.shape[-1]
    out = states.new_empty(*states.shape[:-1], outputs)
    SOURCE.library.antiphon_multiply(
        *places(states, weight, other, bias, out),
        *map(ctypes.c_int64, (states.numel() // inputs, inputs, outputs)),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out
