"""Other linear layers: packed ones sum the same, 8-bit ones say by how much they are off."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

import antiphon
from antiphon import compat
from antiphon.encoding import Encoder
from antiphon.encoding.kernels.linear import (
    LARGEST,
    SMALLEST,
    TOKENS,
    Float8Linear,
    PrepackedLinear,
    blocks,
    in_float8,
)
from antiphon.model.parity import compare, unlike_texts

TEXTS = unlike_texts()


def layer(inputs: int, outputs: int, dtype: torch.dtype, *, bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_sum_the_same(dtype, bias):
    if dtype == torch.bfloat16 and not compat.multiplies(torch.device("cpu"), dtype):
        pytest.skip("this processor has no products of 16 bits, so oneDNN packs no such weights")
    plain = layer(48, 80, dtype, bias=bias)
    packed = PrepackedLinear(plain)
    for shape in ((3, 48), (2, 5, 48), (1, 1, 48), (0, 48), (64, 48), (3, 67, 48), (2049, 48)):
        states = torch.randn(*shape).to(dtype)
        with torch.inference_mode():
            ours, theirs = packed(states), plain(states)
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_blocks_cover_every_token_once_in_few_sizes():
    sizes = set()
    for tokens in range(0, 3 * TOKENS, 7):
        covered = [place for start, size in blocks(tokens) for place in range(start, start + size)]
        assert covered[:tokens] == list(range(tokens))
        assert len(covered) - tokens < SMALLEST
        sizes |= {size for _, size in blocks(tokens)}
    assert sizes == {64, 128, 256, 512, 1024, 2048}


def test_memory_does_not_grow_with_the_numbers_of_tokens_that_packed_layers_meet(monkeypatch):
    met = set()
    product = compat.prepacked_product

    def watched(states, *given):
        met.add(len(states))
        return product(states, *given)

    monkeypatch.setattr(compat, "prepacked_product", watched)
    packed = PrepackedLinear(layer(16, 32, torch.float32, bias=False))
    with torch.inference_mode():
        for tokens in range(1, 4000, 13):
            packed(torch.zeros(tokens, 16))
    assert len(met) <= 6


@pytest.mark.parametrize("bias", [True, False])
def test_8_bit_layers_are_the_product_of_what_was_rounded(bias):
    """The judge multiplies the rounded numbers in 64 bits; a scale in the wrong place would be off by far."""
    plain = layer(64, 32, torch.bfloat16, bias=bias)
    plain.weight.data *= torch.logspace(-2, 1, 32)[:, None].bfloat16()
    states = (torch.randn(2, 7, 64) * torch.logspace(-1, 1, 7)[None, :, None]).bfloat16()
    with torch.inference_mode():
        ours = Float8Linear(plain)(states).double()
    weight, by_output = in_float8(plain.weight.detach())
    rows, by_token = in_float8(states.reshape(-1, 64))
    exact = (rows.double() * by_token) @ (weight.double() * by_output).t()
    exact = (exact + (plain.bias.detach().double() if bias else 0)).view(2, 7, 32)
    assert torch.allclose(ours, exact, rtol=2e-2, atol=1e-2)
    near = (ours - plain(states).double()).norm() / plain(states).double().norm()
    assert 1e-3 < near < 0.1  # 8 bits were used, and they are enough


def test_rows_of_zeros_and_the_largest_number():
    rounded, scale = in_float8(torch.tensor([[0.0, 0.0], [3.0, -6.0]]))
    assert rounded.float().tolist() == [[0.0, 0.0], [LARGEST / 2, -LARGEST]]
    assert torch.allclose(rounded.float() * scale, torch.tensor([[0.0, 0.0], [3.0, -6.0]]))


def test_an_encoder_with_packed_layers(tiny_base, monkeypatch):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="float32")
    encoder = Encoder(model, linear="prepacked")
    assert encoder.error < 1e-3
    assert encoder.mode == "varlen, prepacked"
    packed, plain = [], PrepackedLinear.forward
    monkeypatch.setattr(PrepackedLinear, "forward", lambda self, states: packed.append(self) or plain(self, states))
    truth = np.asarray(model.encode(TEXTS, show_progress_bar=False))
    assert compare(truth, encoder.encode(TEXTS)).equal
    assert len(set(packed)) == 7 * len(model[0].model.layers)
    with torch.no_grad():
        model[0].model.layers[0].mlp.up_proj.weight.mul_(-1.5)
    changed = np.asarray(model.encode(TEXTS, show_progress_bar=False))
    assert not compare(truth, changed).equal
    assert compare(changed, encoder.encode(TEXTS)).equal  # laid out anew


def test_an_encoder_in_8_bits_states_its_error(tiny_base, caplog):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="bfloat16")
    with caplog.at_level(logging.INFO, logger="antiphon"):
        encoder = Encoder(model, linear="float8")
    assert 0 < encoder.error < 1
    assert f"off by {encoder.error:.1e}" in caplog.text
    truth = np.asarray(model.encode(TEXTS, show_progress_bar=False), dtype=np.float32)
    apart = compare(truth, encoder.encode(TEXTS), limit=0.5)
    assert apart.equal, apart
    assert not compare(truth, np.roll(truth, 1, axis=0), limit=0.5).equal


def test_layers_that_fail_are_told_and_left(tiny_base, caplog, monkeypatch):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="float32")

    def fails(*given: object, **more: object) -> None:
        raise RuntimeError("float8 is only supported on other devices")

    monkeypatch.setattr(torch, "_scaled_mm", fails)
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        encoder = Encoder(model, linear="float8")
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("antiphon")]
    assert said.startswith("The layers are not float8, because running it packed fails: ")
    assert compare(np.asarray(model.encode(TEXTS, show_progress_bar=False)), encoder.encode(TEXTS)).equal
