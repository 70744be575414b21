"""Other ways to multiply by a layer's weights, for the view of a decoder; the model's own weights stay as they are.

M tokens, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from antiphon import compat

TOKENS = 2048
"""Tokens that packed weights are laid out for; others are right too."""
FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
_LEAST = 1e-12
"""The least scale: a row of zeros must not divide by zero."""


@torch.library.custom_op("antiphon::prepacked", mutates_args=())
def prepacked(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, outputs: int) -> torch.Tensor:
    """Return the products of states (..., I) with weights in the processor's own layout, (..., O).

    An operator of its own, because a compiler cannot see into that layout.
    """
    product: torch.Tensor = compat.prepacked_product(states, weight, bias)
    return product


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


LINEARS: dict[str, Callable[[nn.Linear], nn.Module]] = {"prepacked": PrepackedLinear, "float8": Float8Linear}
"""The ways by name; "plain" is the model's own."""
