"""Cross-entropy over a vocabulary that never holds the whole tokens-by-vocabulary matrix.

The gradient is made in the forward, chunk by chunk, while the chunk's logits are there; the backward only multiplies
it. So a logit is computed once and kept for no longer than its chunk. Shapes: N tokens, C tokens of a chunk, D width,
V vocabulary.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable

from antiphon.errors import ConfigError

Reduction = Literal["mean", "sum"]
CHUNK = 512
"""Tokens whose logits exist at once: 256 MB in fp32 at a vocabulary of 128k."""


def linear_cross_entropy(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    chunk_size: int = CHUNK,
    reduction: Reduction = "mean",
    softcap: float | None = None,
) -> torch.Tensor:
    """Return `cross_entropy(hidden @ weight.T, targets)`, a scalar in fp32 (fp64 where the states are).

    With a `softcap` c the logits z become c * tanh(z / c) first (Gemma 2). No tokens at all give 0, with a gradient
    of 0, for both reductions: a batch without targets has nothing to learn from and must not make a NaN. Softmax, loss
    and the sum of the weight's gradient are in fp32 whatever the dtype of states and weight.

    Raises ConfigError for a chunk size below 1 or an unknown reduction.
    """
    if chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}; at least 1 token has to be in a chunk.")
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"There is no reduction {reduction!r}; take 'mean' or 'sum'.")
    wants_gradient = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    loss: torch.Tensor = _LinearCrossEntropy.apply(
        hidden_ND, weight_VD, targets_N, _Plan(chunk_size, reduction, softcap, wants_gradient)
    )
    return loss


class _Plan:
    """What is not a tensor in one call."""

    def __init__(self, chunk_size: int, reduction: Reduction, softcap: float | None, wants_gradient: bool) -> None:
        self.chunk_size, self.softcap, self.wants_gradient = chunk_size, softcap, wants_gradient
        self.mean = reduction == "mean"


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, plan: _Plan
    ) -> torch.Tensor:
        exact = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        factor = 1 / max(1, len(targets_N)) if plan.mean else 1.0
        loss = torch.zeros((), dtype=exact, device=hidden_ND.device)
        of_hidden, of_weight = (plan.wants_gradient and needed for needed in ctx.needs_input_grad[:2])
        hidden_gradient = torch.zeros_like(hidden_ND) if of_hidden else None
        weight_gradient = torch.zeros_like(weight_VD, dtype=exact) if of_weight else None
        # one dtype for both factors: fp32 master weights meet bf16 states under autocast
        weight = weight_VD.to(hidden_ND.dtype)
        for start in range(0, len(targets_N), plan.chunk_size):
            part = slice(start, start + plan.chunk_size)
            hidden_CD, targets_C = hidden_ND[part], targets_N[part]
            logits_CV = _logits(hidden_CD, weight, plan.softcap, exact)
            normalizer_C = logits_CV.logsumexp(dim=1)
            loss += (normalizer_C - logits_CV.gather(1, targets_C[:, None])[:, 0]).sum() * factor
            if hidden_gradient is None and weight_gradient is None:
                continue
            slope_CV = _slope(logits_CV, normalizer_C, targets_C, plan.softcap).mul_(factor).to(hidden_ND.dtype)
            if hidden_gradient is not None:
                hidden_gradient[part] = slope_CV @ weight
            if weight_gradient is not None:
                weight_gradient += slope_CV.T @ hidden_CD
        ctx.save_for_backward(hidden_gradient, None if weight_gradient is None else weight_gradient.to(weight_VD.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        # not in place: the same graph may be walked again (retain_graph)
        hidden, weight = (None if made is None else made * upstream[0].to(made.dtype) for made in ctx.saved_tensors)
        return hidden, weight, None, None


def _logits(
    hidden_CD: torch.Tensor, weight_VD: torch.Tensor, softcap: float | None, dtype: torch.dtype
) -> torch.Tensor:
    logits_CV = (hidden_CD @ weight_VD.T).to(dtype)
    return logits_CV if softcap is None else logits_CV.div_(softcap).tanh_().mul_(softcap)


def _slope(
    logits_CV: torch.Tensor, normalizer_C: torch.Tensor, targets_C: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    """Return d loss / d logits before the cap, softmax minus one-hot; reuses the logits' memory."""
    bend_CV = None if softcap is None else 1 - (logits_CV / softcap) ** 2
    slope_CV = logits_CV.sub_(normalizer_C[:, None]).exp_()
    slope_CV[torch.arange(len(targets_C), device=targets_C.device), targets_C] -= 1
    return slope_CV if bend_CV is None else slope_CV.mul_(bend_CV)
