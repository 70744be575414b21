"""Swish and multiplication of a gated layer in one pass: against the definition, and which layers are taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from torch import nn

import antiphon
from antiphon.encoding import Encoder
from antiphon.encoding.kernels.gated import SOURCE, GatedLayer, gated, is_gated

needs_it = pytest.mark.skipif(SOURCE.missing() is not None, reason=f"{SOURCE.missing()}")


@needs_it
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 7, 31), (2, 33, 1536), (40_000,)])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_swish_times_up_to_one_rounding(size, threads, set_threads):
    torch.manual_seed(0)
    gate, up = (torch.randn(size).mul(6).bfloat16(), torch.randn(size).bfloat16())
    set_threads(threads)
    found = gated(gate, up)
    right = F.silu(gate.double()) * up.double()
    assert found.shape == gate.shape
    assert ((found.double() - right).abs() <= 2**-8 * right.abs() + 1e-30).all()


@needs_it
def test_every_number_of_bfloat16_as_a_gate():
    """All 65,536 of them: zeros, the smallest, the largest, infinities and what is not a number."""
    gate = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    found, right = gated(gate, torch.ones_like(gate)).double(), F.silu(gate.double())
    finite = gate.isfinite()
    assert ((found - right).abs()[finite] <= 2**-8 * right.abs()[finite] + 1e-30).all()
    assert found[gate.isnan()].isnan().all()
    assert (found[gate == torch.inf] == torch.inf).all()
    assert not found[gate == -torch.inf].isfinite().any()


@needs_it
def test_states_that_do_not_lie_side_by_side():
    gate, up = torch.randn(8, 20).bfloat16().t(), torch.randn(20, 16).bfloat16()[:, ::2]
    assert torch.equal(gated(gate, up), gated(gate.contiguous(), up.contiguous()))


class Layer(nn.Module):
    """A feed-forward layer with the parts of a gated one."""

    def __init__(self, activation=nn.SiLU, factor=1.0, dtype=torch.bfloat16):
        super().__init__()
        torch.manual_seed(0)
        self.gate_proj, self.up_proj = (nn.Linear(16, 48, bias=False, dtype=dtype) for _ in range(2))
        self.down_proj = nn.Linear(48, 16, dtype=dtype)
        self.act_fn = activation()
        self.factor = factor

    def forward(self, states):
        return self.down_proj(self.act_fn(self.gate_proj(states)) * self.up_proj(states)) * self.factor


@needs_it
def test_a_layer_is_told_by_its_parts_and_its_numbers():
    layer = Layer()
    assert is_gated(layer)
    states = torch.randn(5, 16).bfloat16()
    ours, theirs = GatedLayer(dict(layer.named_children()))(states), layer(states)
    assert (ours - theirs).abs().max() <= 2**-6 * theirs.abs().max()
    assert not is_gated(Layer(nn.GELU))
    assert not is_gated(Layer(factor=1.25))
    assert not is_gated(Layer(dtype=torch.float32))
    assert not is_gated(layer.gate_proj)
    layer.more = nn.Identity()
    assert not is_gated(layer)


@needs_it
@pytest.mark.parametrize(
    ("shape", "taken"), [("llama", True), ("qwen3", True), ("olmo2", True), ("gemma3", False), ("phi3", False)]
)
def test_the_encoder_takes_them_and_the_model_keeps_its_own(tmp_path, shape, taken):
    base = make_base(tmp_path / "base", shape)
    model = antiphon.build(base, "classical", pooling="mean", max_tokens=48, dtype="bfloat16")
    encoder = Encoder(model, widen=False)
    assert encoder.reason is None
    assert any(isinstance(part, GatedLayer) for part in encoder._runner.decoder.model.modules()) == taken
    assert not any(isinstance(part, GatedLayer) for part in model.modules())
    texts = [f"text number {number} " * (1 + number % 5) for number in range(20)]
    truth = antiphon.build(base, "classical", pooling="mean", max_tokens=48, dtype="float32").encode(texts)
    off = [np.linalg.norm(vectors - truth) for vectors in (encoder.encode(texts), model.encode(texts))]
    assert off[0] < 1.5 * off[1]


def test_where_it_cannot_be_built_layers_are_the_models_own(plain_processor):
    assert not is_gated(Layer())
