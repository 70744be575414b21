"""Cross-entropy over a vocabulary that never holds the whole tokens-by-vocabulary matrix.

The gradient is made in the forward, chunk by chunk, while the chunk's logits are there; the backward only multiplies
it. So a logit is computed once and kept for no longer than its chunk. Shapes: N tokens, C tokens of a chunk, D width,
V vocabulary.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
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
    and the sum of the weight's gradient are in fp32 whatever the dtype of states and weight. On a GPU liger-kernel does
    it where it is installed.

    Raises ConfigError for a chunk size below 1 or an unknown reduction.

    Example:
        >>> import torch
        >>> from antiphon.losses import linear_cross_entropy
        >>> loss = linear_cross_entropy(torch.zeros(2, 4), torch.ones(8, 4), torch.tensor([1, 3]))
        >>> round(float(loss), 4)  # ln 8
        2.0794
    """
    if chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}; at least 1 token has to be in a chunk.")
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"There is no reduction {reduction!r}; take 'mean' or 'sum'.")
    device = hidden_ND.device.type
    # as the head itself would, a linear layer; autocast leaves float64 alone, and for float16 slopes are too small
    if torch.is_autocast_enabled(device) and hidden_ND.dtype != torch.float64:
        narrow = torch.get_autocast_dtype(device)
        hidden_ND = hidden_ND.to(narrow if narrow == torch.bfloat16 else torch.float32)
    if hidden_ND.is_cuda and hidden_ND.dtype != torch.float64 and len(targets_N) and find_spec("liger_kernel"):
        return _by_liger(hidden_ND, weight_VD, targets_N, reduction, softcap)
    wants_gradient = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    loss: torch.Tensor = _LinearCrossEntropy.apply(
        hidden_ND, weight_VD, targets_N, _Plan(chunk_size, reduction, softcap, wants_gradient)
    )
    return loss


def _by_liger(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    reduction: Reduction,
    softcap: float | None,
) -> torch.Tensor:
    """Return the same by liger-kernel's Triton kernels, which choose their own chunks (arXiv 2410.10989)."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy  # runs on a GPU only

    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden_ND,
        weight_VD.to(hidden_ND.dtype),
        targets_N,
        reduction=reduction,
        softcap=softcap,
        accum_dtype=torch.float32,
    )
    return loss.float()


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
        chunks = max(1, math.ceil(len(targets_N) / plan.chunk_size))
        size = max(1, math.ceil(len(targets_N) / chunks))  # all alike: a small rest would be multiplied slowly
        # made once and used by every chunk: fresh memory of this size costs more than what is computed in it
        products = hidden_ND.new_empty(size, len(weight))
        scores = products if products.dtype == exact else products.new_empty(products.shape, dtype=exact)
        for start in range(0, len(targets_N), size):
            part = slice(start, start + size)
            hidden_CD, targets_C = hidden_ND[part], targets_N[part]
            product_CV, logits_CV = products[: len(targets_C)], scores[: len(targets_C)]
            torch.mm(hidden_CD, weight.T, out=product_CV)
            if scores is not products:
                logits_CV.copy_(product_CV)
            losses_C = _into_slope(logits_CV, targets_C, plan.softcap, factor)
            loss += losses_C.sum() * factor
            if hidden_gradient is None and weight_gradient is None:
                continue
            slope_CV = product_CV if scores is products else product_CV.copy_(logits_CV)
            if hidden_gradient is not None:
                torch.mm(slope_CV, weight, out=hidden_gradient[part])
            if weight_gradient is not None:
                _add_product(weight_gradient, slope_CV.T, hidden_CD)
        ctx.save_for_backward(hidden_gradient, None if weight_gradient is None else weight_gradient.to(weight_VD.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        # not in place: the same graph may be walked again (retain_graph)
        hidden, weight = (None if made is None else made * upstream[0].to(made.dtype) for made in ctx.saved_tensors)
        return hidden, weight, None, None


def _add_product(sum_VD: torch.Tensor, slope_VC: torch.Tensor, hidden_CD: torch.Tensor) -> None:
    """Add the product of two matrices to a sum, which may have more bits than they."""
    if sum_VD.dtype == hidden_CD.dtype:
        sum_VD.addmm_(slope_VC, hidden_CD)  # no memory for the product
    else:
        sum_VD += slope_VC @ hidden_CD


def _into_slope(logits_CV: torch.Tensor, targets_C: torch.Tensor, softcap: float | None, factor: float) -> torch.Tensor:
    """Return the losses (C) of logits before the cap, and put factor * d loss / d logits in their place."""
    bend_CV = None
    if softcap is not None:
        logits_CV.div_(softcap).tanh_()
        bend_CV = 1 - logits_CV**2
        logits_CV.mul_(softcap)
    most_C = logits_CV.amax(dim=1)
    of_targets_C = logits_CV.gather(1, targets_C[:, None])[:, 0] - most_C
    sums_C = logits_CV.sub_(most_C[:, None]).exp_().sum(dim=1)
    logits_CV.mul_((factor / sums_C)[:, None])
    logits_CV[torch.arange(len(targets_C), device=targets_C.device), targets_C] -= factor
    if bend_CV is not None:
        logits_CV.mul_(bend_CV)
    return sums_C.log() - of_targets_C
