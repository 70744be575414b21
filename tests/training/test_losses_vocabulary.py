"""The chunked, fused cross-entropy is torch's, in value and in gradient."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from antiphon.errors import ConfigError
from antiphon.training.losses.vocabulary import linear_cross_entropy

TOKENS, WIDTH, VOCABULARY = 13, 8, 31


def problem(dtype: torch.dtype, *, tokens: int = TOKENS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(VOCABULARY, (tokens,), generator=generator)


def reference(hidden, weight, targets, *, reduction="mean", softcap=None):
    logits = hidden @ weight.T
    return F.cross_entropy(
        logits if softcap is None else softcap * torch.tanh(logits / softcap), targets, reduction=reduction
    )


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chunk_size", [1, 2, 5, TOKENS - 1, TOKENS, TOKENS + 1, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_torch(chunk_size, reduction, dtype, tolerance, softcap):
    hidden, weight, targets = problem(dtype)
    wanted = reference(hidden, weight, targets, reduction=reduction, softcap=softcap)
    wanted_gradients = torch.autograd.grad(3.5 * wanted, [hidden, weight])
    loss = linear_cross_entropy(hidden, weight, targets, chunk_size=chunk_size, reduction=reduction, softcap=softcap)
    gradients = torch.autograd.grad(3.5 * loss, [hidden, weight])
    torch.testing.assert_close(loss, wanted, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(gradients, wanted_gradients, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance * 10)


def test_gradcheck():
    hidden, weight, targets = problem(torch.float64, tokens=5)
    assert torch.autograd.gradcheck(
        lambda h, w: linear_cross_entropy(h, w, targets, chunk_size=2, softcap=3.0), (hidden, weight)
    )


def test_bf16_has_fp32_softmax():
    hidden, weight, targets = problem(torch.bfloat16, tokens=200)
    exact = [part.detach().double().requires_grad_() for part in (hidden, weight)]
    wanted = reference(*exact, targets)
    loss = linear_cross_entropy(hidden, weight, targets, chunk_size=16)
    assert loss.dtype == torch.float32
    # logits are products of bf16 rounded once; a softmax in bf16 would be off by about 1e-2
    assert abs(loss.double() - wanted) < 2e-3
    mine = torch.autograd.grad(loss, [hidden, weight])
    theirs = torch.autograd.grad(wanted, exact)
    for made, true in zip(mine, theirs, strict=True):
        assert made.dtype == torch.bfloat16
        assert (made.double() - true).norm() < 1e-2 * true.norm()


def test_under_autocast_with_fp32_weights():
    hidden, weight, targets = problem(torch.float32)
    wanted = reference(hidden, weight, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, chunk_size=4)
    gradients = torch.autograd.grad(loss, [hidden, weight])
    assert loss.dtype == torch.float32
    assert abs(loss - wanted) < 2e-2
    assert [part.dtype for part in gradients] == [torch.float32, torch.float32]
    assert loss == linear_cross_entropy(hidden.bfloat16(), weight, targets, chunk_size=4)  # as the head's layer would


def test_autocast_leaves_float64_alone():
    hidden, weight, targets = problem(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, chunk_size=4)
    torch.testing.assert_close(loss, reference(hidden, weight, targets))


def test_slopes_are_too_small_for_float16():
    """Every gradient comes out, also one that half precision would have made 0."""
    hidden, weight, targets = problem(torch.float32)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = linear_cross_entropy(hidden.half(), weight * 1e-6, targets, chunk_size=4) * 1e-3
    gradients = torch.autograd.grad(loss, [weight])
    wanted = torch.autograd.grad(reference(hidden.half().float(), weight * 1e-6, targets) * 1e-3, [weight])
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_gradient_only_where_it_is_wanted(frozen):
    hidden, weight, targets = problem(torch.float64)
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    free = weight if frozen == "hidden" else hidden
    loss = linear_cross_entropy(hidden, weight, targets, chunk_size=4)
    (saved,) = [part for part in loss.grad_fn.saved_tensors if part is not None]
    assert saved.shape == free.shape
    (gradient,) = torch.autograd.grad(loss, [free])
    (wanted,) = torch.autograd.grad(reference(hidden, weight, targets), [free])
    torch.testing.assert_close(gradient, wanted)


def test_without_gradient_none_is_made():
    hidden, weight, targets = problem(torch.float64)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, chunk_size=4)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, reference(hidden, weight, targets).detach())


def test_graph_can_be_walked_twice():
    hidden, weight, targets = problem(torch.float64)
    loss = linear_cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(loss, [hidden, weight], retain_graph=True)
    second = torch.autograd.grad(2 * loss, [hidden, weight])
    torch.testing.assert_close([2 * part for part in first], list(second))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_tokens_give_zero_and_a_gradient_of_zero(reduction):
    hidden, weight, targets = problem(torch.float32, tokens=0)
    loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction)
    assert loss.item() == 0.0
    of_hidden, of_weight = torch.autograd.grad(loss, [hidden, weight])
    assert of_hidden.shape == (0, WIDTH)
    assert torch.equal(of_weight, torch.zeros_like(weight))


def test_never_holds_tokens_by_vocabulary():
    """The largest tensor that any operation makes is a chunk's, or the weight's gradient."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in (result,) if isinstance(part, torch.Tensor))
            return result

    hidden, weight, targets = problem(torch.float32, tokens=400)
    with Watch():
        linear_cross_entropy(hidden, weight, targets, chunk_size=10).backward()
    assert max(sizes) == max(hidden.numel(), 10 * VOCABULARY)
    sizes.clear()
    with Watch():
        linear_cross_entropy(hidden, weight, targets, chunk_size=400).backward()
    assert max(sizes) == 400 * VOCABULARY  # the watch sees a whole matrix where there is one


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"reduction": "none"}])
def test_bad_settings(options):
    hidden, weight, targets = problem(torch.float32)
    with pytest.raises(ConfigError):
        linear_cross_entropy(hidden, weight, targets, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or find_spec("liger_kernel") is None, reason="no GPU or no liger")
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_liger_is_the_same(reduction, softcap):
    results = []
    for device in ("cpu", "cuda"):
        hidden, weight, targets = (part.detach().to(device) for part in problem(torch.float32))
        inputs = (hidden.requires_grad_(), weight.requires_grad_())
        loss = linear_cross_entropy(*inputs, targets, reduction=reduction, softcap=softcap)
        results.append([loss, *torch.autograd.grad(2 * loss, inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-3, atol=1e-4)
