"""Attention by products that learns: against the definition in float64, forward and backward, and its way out."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface

from antiphon.encoding.kernels.folded import NAME, attend_folded, register

SHAPES = [(2, 9, 3, 12, 16), (1, 4, 4, 7, 8), (3, 4, 1, 5, 8), (1, 1, 1, 1, 4)]
"""Rows, heads, key heads, width of a row, head width."""


def made(shape, dtype=torch.float64):
    rows, heads, shared, width, size = shape
    torch.manual_seed(0)
    states = [torch.randn(rows, width, number, size).to(dtype) for number in (heads, shared, shared)]
    text = torch.arange(width).div(3, rounding_mode="floor").expand(rows, -1)  # texts of three tokens beside each other
    seen = (text[:, :, None] == text[:, None]) & torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(rows, 1, width, width, dtype=torch.float64).masked_fill(~seen[:, None], -1e30)
    return [one.transpose(1, 2).requires_grad_() for one in states], mask


def defined(query, key, value, mask, scaling, dropout=0.0):
    group = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(group, 1).transpose(2, 3) * scaling + mask
    weights = torch.nn.functional.dropout(scores.softmax(-1).to(value.dtype), dropout)
    return (weights @ value.repeat_interleave(group, 1)).transpose(1, 2)


def attended(states, mask, **given):
    return attend_folded(torch.nn.Module(), *states, mask, **given)[0]


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_softmax_over_what_is_seen_and_so_are_its_gradients(shape, scaling):
    states, mask = made(shape)
    found, right = attended(states, mask, scaling=scaling), defined(*states, mask, scaling or shape[-1] ** -0.5)
    assert found.shape == right.shape
    assert torch.allclose(found, right, rtol=0, atol=1e-12)
    slope = torch.randn_like(right)
    gradients = [torch.autograd.grad(one, states, slope) for one in (found, right)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)


def test_its_gradients_are_those_of_finite_differences():
    states, mask = made(SHAPES[0])
    assert torch.autograd.gradcheck(lambda *given: attended(given, mask), states)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_16_bits_it_is_off_by_roundings_only(shape):
    """Queries and keys may come in float32, as rotation makes them under autocast: the values' dtype is computed in."""
    states, mask = made(shape)
    slope = torch.randn(shape[0], shape[3], shape[1], shape[4], dtype=torch.float64)
    right = attended(states, mask)
    gradients = torch.autograd.grad(right, states, slope)
    kinds = (torch.float32, torch.float32, torch.bfloat16)
    narrow = [one.detach().to(kind).requires_grad_() for one, kind in zip(states, kinds, strict=True)]
    found = attended(narrow, mask.float())
    assert found.dtype == torch.bfloat16
    assert (found.double() - right).abs().max() < 0.03
    learned = torch.autograd.grad(found, narrow, slope.bfloat16())
    for ours, given, theirs in zip(learned, narrow, gradients, strict=True):
        assert ours.dtype == given.dtype
        assert (ours.double() - theirs).norm() < 0.02 * theirs.norm() + 1e-6


@pytest.mark.parametrize("common", [3.0, 10.0])
def test_what_keys_and_values_have_in_common_does_not_spoil_gradients(common):
    """Rounded weights that do not sum to 1 would: queries' gradients were 3 times as far off as PyTorch's own."""
    states, mask = made((2, 9, 3, 96, 16))
    with torch.no_grad():
        states[1] += common * torch.randn(16, dtype=torch.float64)
        states[2] += 3 * torch.randn(16, dtype=torch.float64)
    slope = torch.randn(2, 96, 9, 16, dtype=torch.float64)
    wanted = torch.autograd.grad(defined(*states, mask, 0.25), states, slope)
    narrow = [one.detach().bfloat16().requires_grad_() for one in states]
    off = []
    for found in (attended(narrow, mask.float(), scaling=0.25), defined(*narrow, mask.float(), 0.25)):
        learned = torch.autograd.grad(found, narrow, slope.to(found.dtype))
        off.append(
            [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(learned, wanted, strict=True)]
        )
    assert all(ours < 1.3 * theirs for ours, theirs in zip(*off, strict=True)), off


def test_under_autocast_values_of_float32_are_narrowed_too():
    states, mask = made(SHAPES[0], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = attended(states, mask.float())
    assert found.dtype == torch.bfloat16
    assert all(one.dtype == torch.float32 for one in torch.autograd.grad(found.sum(), states))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dropout_drops_what_pytorchs_own_would(dtype):
    """In forward and backward, by the numbers that transformers' own products draw."""
    shape = (2, 9, 3, 40, 16)
    states, mask = made(shape)
    states = [one.detach().to(dtype).requires_grad_() for one in states]
    slope = torch.randn(2, 40, 9, 16).to(dtype)
    found = []
    for call in (attended, lambda states, mask, **given: defined(*states, mask, 0.2, dropout=0.5)):
        torch.manual_seed(1)
        out = call(states, mask, scaling=0.2, dropout=0.5)
        found.append([out, *torch.autograd.grad(out, states, slope)])
    limit = 1e-12 if dtype == torch.float64 else 0.02
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < limit * theirs.norm()
    assert (found[0][0] - attended(states, mask, scaling=0.2)).norm() > 0.3 * found[0][0].norm()


def test_with_a_bias_of_positions_pytorchs_own_call_is_taken():
    register()
    assert AttentionInterface()[NAME] is attend_folded
    states, mask = made(SHAPES[0], torch.float32)
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    calls = (attend_folded, AttentionInterface()["sdpa"])
    bias = torch.randn(1, 1, 12, 12)
    found = [call(module, *states, mask.float(), scaling=0.2, position_bias=bias)[0] for call in calls]
    assert torch.equal(*found)
