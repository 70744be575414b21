"""Layers compiled in training: the same steps, judged before they are taken, and plain wherever that is not so."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon import compat
from antiphon.errors import ConfigError
from antiphon.training import compiled_layers as module
from antiphon.training.compiled_layers import compiled_layers
from antiphon.training.losses import ContrastiveLoss
from antiphon.training.losses.packer import Packer

pytestmark = pytest.mark.usefixtures("warm_checks")


@pytest.fixture
def model(tiny_base) -> SentenceTransformer:
    return antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=96, dtype="float32").train()


@pytest.fixture
def built(monkeypatch):
    """Let layers be what `built.fault` makes of them, without a compiler; `built.calls` counts their passes."""

    class Built:
        calls = 0

        @staticmethod
        def fault(states):
            return states

        def backend(self, graph, inputs):
            def run(*given):
                self.calls += 1
                return tuple(self.fault(one) if torch.is_tensor(one) else one for one in graph(*given))

            return run

    built, run_compiled = Built(), compat.run_compiled

    def built_by_us(layer, when, **settings):
        run_compiled(layer, when, **{**settings, "options": None}, backend=built.backend)

    torch._dynamo.reset()
    monkeypatch.setattr(module.compat, "run_compiled", built_by_us)
    return built


def half_a_gradient(states):
    return states.detach() + (states - states.detach()) * 0.5


FAULTS = {
    "vectors": (lambda states: states * torch.linspace(0.5, 1.5, states.shape[-1]), "its packed vectors differ"),
    "gradients": (half_a_gradient, "their gradient is off from that in float32 by"),
}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_the_layers_run_as_they_are(model, built, caplog, name, packed, precision):
    built.fault, sentence = FAULTS[name]
    packer = Packer.of(model) if packed else None
    with caplog.at_level(logging.WARNING, logger="antiphon"), compiled_layers(model, packer, precision):
        built.calls = 0
        model(model.preprocess(["a text", "another"]))
        assert built.calls == 0
    assert f"The layers are not compiled, because {sentence}" in caplog.text


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_layers_are_compiled_in_training_and_nowhere_else(model, built, caplog, precision):
    with caplog.at_level(logging.WARNING, logger="antiphon"), compiled_layers(model, Packer.of(model), precision):
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
        built.calls = 0
        features = model.preprocess(["a text", "another"])
        model.eval()
        model(dict(features))
        antiphon.Encoder(model).encode(["a text", "another"])
        assert built.calls == 0
        model.train()
        model(dict(features))
        assert built.calls >= len(model[0].model.layers)
    built.calls = 0
    model(dict(features))
    assert built.calls == 0
    assert not caplog.records


def test_a_decoder_without_known_layers_is_refused(model):
    model[0].model.config.num_hidden_layers += 1
    with (
        pytest.raises(ConfigError, match="none can be compiled; leave compile out"),
        compiled_layers(model, None, "bf16"),
    ):
        pass


def recipe(base, folder, **stage):
    pairs = folder / "pairs.jsonl"
    words = ["the", "module", "reads", "a", "file", "and", "gives", "its", "lines", "as", "a", "list", "of", "strings"]
    rows = [{"query": f"{word} {n}", "positive": f"about {word} {n}, " * (n + 1)} for n in range(4) for word in words]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = {"steps": 3, "batch_size": 8, "learning_rate": 1e-3, "log_every": 1}
    return {
        "name": "run",
        "model": {"base": str(base), "template": "classical", "pooling": "last", "max_tokens": 32},
        "data": {"sets": [{"name": "pairs", "source": str(pairs)}]},
        "stage": [
            {"name": "one", "loss": "reconstruction", **both, **stage},
            {"name": "two", "loss": "contrastive", "lora": {"rank": 2, "alpha": 4, "dropout": 0.0}, **both, **stage},
        ],
    }


def apart(base, tmp_path, table):
    """How far weights are that were trained with compiled layers from those without, in what the latter moved by."""
    weights = {}
    for name in ("plain", "compiled"):
        stages = [{**stage, "compile": name == "compiled"} for stage in table["stage"]]
        out = antiphon.train({**table, "stage": stages, "out": str(tmp_path / name)})
        weights[name] = load_file(next(out.glob("stages/*-two/model/model.safetensors")))
    before = load_file(base / "model.safetensors")
    named = {name: next(own for own in before if own.endswith(name)) for name in weights["plain"]}
    moved = max((weights["plain"][name] - before[own]).abs().max() for name, own in named.items())
    assert moved > 1e-3
    return max((weights["plain"][name] - weights["compiled"][name]).abs().max() for name in named) / moved


@pytest.mark.slow
def test_traced_steps_are_the_same_steps(tiny_base, tmp_path, caplog, monkeypatch):
    """What the compiler is given, run as it is: Stage I, then LoRA with a gradient cache and recomputed activations."""
    monkeypatch.setitem(module.COMPILED, "backend", "aot_eager")
    monkeypatch.setattr(module, "_OPTIONS", None)
    table = recipe(tiny_base, tmp_path)
    table["stage"][1] |= {"settings": {"mini_batch_size": 4}, "gradient_checkpointing": True}
    with caplog.at_level(logging.INFO, logger="antiphon"):
        assert apart(tiny_base, tmp_path, table) < 1e-2
    assert caplog.text.count("The layers are compiled, after") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_compiled_steps_are_the_same_steps(tiny_base, tmp_path, caplog):
    table = recipe(tiny_base, tmp_path, loss="contrastive")
    table["stage"] = [{**table["stage"][0], "name": "two"}]
    with caplog.at_level(logging.INFO, logger="antiphon"):
        assert apart(tiny_base, tmp_path, table) < 1e-2
    assert caplog.text.count("The layers are compiled, after") == 1


def test_all_of_a_loss_is_computed_in_the_stages_precision(tmp_path, monkeypatch):
    """The trainer's own autocast is around the model's forward alone, where nothing asks what to compute in."""
    seen = []
    forward = ContrastiveLoss.forward

    def observed(self, *given):
        value = forward(self, *given)
        seen.append((torch.is_autocast_enabled("cpu"), self.packer.products))
        return value

    monkeypatch.setattr(ContrastiveLoss, "forward", observed)
    for precision in ("bf16", "float32"):
        table = recipe("nano", tmp_path, precision=precision, steps=1)
        table["stage"] = table["stage"][1:]
        antiphon.train({**table, "out": str(tmp_path / precision)})
    assert seen == [(True, True), (False, None)]


def test_without_a_compiler_a_stage_is_trained_as_it_is(tiny_base, tmp_path, monkeypatch, caplog):
    def fails(graph, inputs, **options):
        raise RuntimeError("no working C++ compiler")

    torch._dynamo.reset()
    monkeypatch.setitem(module.COMPILED, "backend", fails)
    monkeypatch.setattr(module, "_OPTIONS", None)
    table = recipe(tiny_base, tmp_path, compile=True, steps=1)
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        antiphon.train({**table, "out": str(tmp_path / "run")})
    assert caplog.text.count("The layers are not compiled, because running it packed fails") == 2
