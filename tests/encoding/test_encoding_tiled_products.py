"""Products in a processor's tiles: against the definition in float64, in the Encoder, and which layers are taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from torch import nn

import antiphon
from antiphon import compat
from antiphon.encoding import Encoder
from antiphon.encoding.execution import linear_for
from antiphon.encoding.kernels import tiled_products
from antiphon.encoding.kernels.gated import GatedLayer
from antiphon.encoding.kernels.linear import PrepackedLinear, prepacked_linear
from antiphon.encoding.kernels.tiled_products import TiledLinear, fits, laid_out, tiled_gate

needs_it = pytest.mark.skipif(tiled_products.SOURCE.missing() is not None, reason=f"{tiled_products.SOURCE.missing()}")
ROWS = (0, 1, 5, 15, 16, 17, 31, 32, 33, 63, 255, 256, 257, 290, 513, 1000)
SHAPES = [(32, 32), (576, 96), (96, 576), (1536, 64), (64, 4096)]


def linear(inputs: int, outputs: int, *, bias: bool = False, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias, dtype=torch.bfloat16)


def exact(states: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    product = states.double() @ layer.weight.detach().double().t()
    return product if layer.bias is None else product + layer.bias.detach().double()


def near(found: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether a number is off by one rounding, and by that of a sum in float32."""
    return bool(((found.double() - right).abs() <= 2**-8 * right.abs() + 1e-5).all())


@needs_it
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_it_is_the_product_rounded_once(inputs, outputs, threads, set_threads):
    set_threads(threads)
    for rows in ROWS:
        for layer in (linear(inputs, outputs), linear(inputs, outputs, bias=True)):
            states = torch.randn(rows, inputs).bfloat16()
            found = TiledLinear(layer)(states)
            assert found.shape == (rows, outputs)
            assert near(found, exact(states, layer)), rows


@needs_it
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_a_gate_is_swish_of_one_product_times_the_other(inputs, outputs, threads, set_threads):
    set_threads(threads)
    gate, up = linear(inputs, outputs), linear(inputs, outputs, seed=1)
    for rows in ROWS:
        states = (torch.randn(rows, inputs) * 9).bfloat16()
        found = tiled_gate(states, laid_out(gate.weight.detach()), laid_out(up.weight.detach()), outputs)
        assert near(found, F.silu(exact(states, gate)) * exact(states, up)), rows


@needs_it
def test_a_row_is_the_same_to_the_bit_wherever_it_stands(set_threads):
    """In a batch of any size, at any place, with any number of threads."""
    packed = TiledLinear(linear(160, 224, bias=True))
    states = torch.randn(700, 160).bfloat16()
    whole = packed(states)
    for start, end in ((0, 1), (0, 16), (3, 20), (250, 290), (511, 700), (699, 700)):
        assert torch.equal(packed(states[start:end]), whole[start:end])
    for threads in (2, 5):
        set_threads(threads)
        assert torch.equal(packed(states), whole)


@needs_it
def test_states_of_any_layout_and_what_is_no_number():
    layer = linear(64, 96)
    packed = TiledLinear(layer)
    turned = torch.randn(64, 5, 7).bfloat16().permute(1, 2, 0)
    assert torch.equal(packed(turned), packed(turned.contiguous()))
    states = torch.randn(40, 64).bfloat16()
    before = packed(states)
    states[33, 5] = torch.nan
    after = packed(states)
    assert after[33].isnan().all()
    others = torch.arange(40) != 33
    assert torch.equal(after[others], before[others])


@needs_it
def test_which_layers_are_taken():
    assert fits(linear(64, 96))
    assert isinstance(prepacked_linear(linear(64, 96)), TiledLinear)
    mixed = linear(64, 96, bias=True)
    mixed.bias = nn.Parameter(mixed.bias.float())
    for layer in (mixed, nn.Linear(64, 96)):
        assert not fits(layer)
        assert isinstance(prepacked_linear(layer), PrepackedLinear)
    for layer in (linear(64, 40), linear(40, 64), linear(tiled_products.DEEPEST + 32, 64)):
        assert not fits(layer)
        assert prepacked_linear(layer) is None  # the model's own is as fast


def test_where_it_cannot_be_built_layers_are_packed_as_before(plain_processor):
    assert not fits(linear(64, 96))
    if compat.multiplies(torch.device("cpu"), torch.bfloat16):
        assert isinstance(prepacked_linear(linear(64, 96)), PrepackedLinear)


@needs_it
@pytest.mark.parametrize("shape", ["llama", "qwen3", "olmo2", "gemma3", "qwen2"])
def test_an_encoder_takes_them_beside_compiled_layers(tmp_path, shape):
    base = make_base(tmp_path / "base", shape)
    model = antiphon.build(base, "classical", pooling="mean", max_tokens=48, dtype="bfloat16")
    assert linear_for(model) == "prepacked"
    encoder = Encoder(model, linear="prepacked", widen=False)
    assert encoder.reason is None
    parts = list(encoder._runner.decoder.model.modules())
    fitting = [part for part in model.modules() if isinstance(part, nn.Linear) and fits(part)]
    assert sum(isinstance(part, TiledLinear) for part in parts) == len(fitting) > 0
    assert not any(isinstance(part, TiledLinear | GatedLayer) for part in model.modules())
    texts = [f"text number {number} " * (1 + number % 5) for number in range(20)]
    truth = antiphon.build(base, "classical", pooling="mean", max_tokens=48, dtype="float32").encode(texts)
    off = [np.linalg.norm(vectors - truth) for vectors in (encoder.encode(texts), model.encode(texts))]
    assert off[0] < 1.5 * off[1]


def test_compiled_layers_take_what_goes_best_with_them_and_others_what_was_asked(tiny_base, monkeypatch):
    """What is compiled here is the layer as it is: which linears it has is what is asked."""
    if not compat.multiplies(torch.device("cpu"), torch.bfloat16):
        pytest.skip("this processor has no products of 16 bits, so oneDNN packs no such weights")
    monkeypatch.setattr("antiphon.encoding.decoder.compiled", lambda layer: layer)
    model = antiphon.build(tiny_base, "classical", pooling="mean", max_tokens=48, dtype="bfloat16")
    best = linear_for(model)
    for asked, compile, taken in (
        (None, True, best),
        ("plain", True, "plain"),
        (None, False, "plain"),
        ("prepacked", False, "prepacked"),
    ):
        encoder = Encoder(model, linear=asked, compile=compile, widen=False)
        assert (encoder.fault, "prepacked" in encoder.mode) == (None, taken == "prepacked"), (asked, compile)
