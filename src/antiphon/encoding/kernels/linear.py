"""Other ways to multiply by a layer's weights, for the view of a decoder; the model's own weights stay as they are.

M tokens, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from antiphon import compat
from antiphon.encoding.kernels.tiled_products import TiledLinear, fits, is_for_tiles

TOKENS = 2048
"""Tokens that packed weights are laid out for; others are right too."""
SMALLEST = 64
"""Tokens of the smallest block of float32, which is filled up with zeros."""
FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
_LEAST = 1e-12
"""The least scale: a row of zeros must not divide by zero."""


@torch.library.custom_op("antiphon::prepacked", mutates_args=())
def prepacked(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, outputs: int) -> torch.Tensor:
    """Return the products of states (..., I) with weights in the processor's own layout, (..., O).

    An operator of its own, because a compiler cannot see into that layout. For every number of tokens oneDNN keeps
    memory, in float32 as much as the product takes and without a bound: there tokens are multiplied in blocks of few
    sizes.
    """
    if states.dtype != torch.float32:
        return compat.prepacked_product(states, weight, bias)
    states_MI = states.reshape(-1, states.shape[-1])
    product_MO = states.new_empty(len(states_MI), outputs)
    for start, size in blocks(len(states_MI)):
        block = states_MI[start : start + size]
        padded = F.pad(block, (0, 0, 0, size - len(block))) if len(block) < size else block
        product_MO[start : start + size] = compat.prepacked_product(padded, weight, bias)[: len(block)]
    return product_MO.view(*states.shape[:-1], outputs)


def blocks(tokens: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of blocks that cover so many tokens: TOKENS, and its halves down to the smallest block."""
    start, size = 0, TOKENS
    while start < tokens:
        while size > SMALLEST and size > tokens - start:
            size //= 2
        yield start, size
        start += size


@prepacked.register_fake
def _(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, outputs: int) -> torch.Tensor:
    return states.new_empty(*states.shape[:-1], outputs)


class PrepackedLinear(nn.Module):
    """A linear layer whose weights lie as the processor's products read them: the same sums, the weights held twice."""

    weight: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.outputs = linear.out_features
        self.register_buffer("weight", compat.prepacked_weight(linear.weight.detach(), TOKENS), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the products of states (..., I), (..., O)."""
        product: torch.Tensor = prepacked(states, self.weight, self.bias, self.outputs)
        return product


class Float8Linear(nn.Module):
    """A linear layer in 8-bit floats, with a scale of its own for every token and for every output."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        weight_OI, scale_O1 = in_float8(linear.weight.detach())
        self.register_buffer("weight", weight_OI, persistent=False)
        self.register_buffer("scale", scale_O1.t().contiguous(), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the products of states (..., I), (..., O), in the states' dtype."""
        states_MI, scale_M1 = in_float8(states.reshape(-1, states.shape[-1]))
        product_MO = compat.scaled_product(states_MI, self.weight.t(), scale_M1, self.scale, states.dtype)
        if self.bias is not None:
            product_MO = product_MO + self.bias
        return product_MO.view(*states.shape[:-1], -1)


def in_float8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (M, I) in 8-bit floats, and what each row (M, 1) was divided by."""
    scale_M1 = (rows.abs().amax(dim=1, keepdim=True).float() / LARGEST).clamp(min=_LEAST)
    return (rows.float() / scale_M1).to(FLOAT8), scale_M1


def prepacked_linear(linear: nn.Linear) -> nn.Module | None:
    """Return a linear layer with its weights laid out for this processor, None where it is best left as it is.

    oneDNN multiplies by plain weights as fast as by packed ones where there are tiles.
    """
    if fits(linear):
        return TiledLinear(linear)
    return None if is_for_tiles(linear) else PrepackedLinear(linear)


LINEARS: dict[str, Callable[[nn.Linear], nn.Module | None]] = {"prepacked": prepacked_linear, "float8": Float8Linear}
"""The ways by name; "plain" is the model's own, and so is what a way leaves as it is."""
