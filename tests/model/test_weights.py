"""Every weight is accounted for: what is missing, renamed, left over or cut is a sentence, never a random vector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_base
from safetensors.torch import load_file, save_file

import antiphon
from antiphon.errors import CheckpointError, ModelError
from antiphon.model.adapted import adapt
from antiphon.model.adapters import Lora, attach
from antiphon.model.parity import compare, encode, unlike_texts

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi", "phi3", "gpt_neox", "olmo2", "olmo3")
QUERY = "layers.1.self_attn.q_proj.weight"
WRONG = {
    "missing": (lambda tensors: _without(tensors, "layers.1."), "there is no tensor layers.1"),
    "no embeddings": (lambda tensors: _without(tensors, "embed"), "there is no tensor embed"),
    "all renamed": (lambda tensors: {f"other.{name}": value for name, value in tensors.items()}, "and 1[0-9] more"),
    "one renamed": (
        lambda tensors: _renamed(tensors, QUERY),
        "no layer takes, model.layers.1.self_attn.q_proj",
    ),
    "cut": (lambda tensors: _cut(tensors, QUERY), r"another shape, layers.1.self_attn.q_proj.weight \[8, 32\] where"),
}
CONFIGS = {
    "more layers": ({"num_hidden_layers": 3}, r"no tensor layers\.2"),
    "fewer layers": ({"num_hidden_layers": 1}, r"no layer takes, model\.layers\.1"),
}


def _without(tensors, part):
    return {name: value for name, value in tensors.items() if part not in name}


def _renamed(tensors, part):
    return {f"{name}x" if part in name else name: value for name, value in tensors.items()}


def _cut(tensors, part):
    return {name: value[:8].clone() if part in name else value for name, value in tensors.items()}


def changed(base: Path, folder: Path, change) -> Path:
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build(base: Path, **options):
    return antiphon.build(base, "classical", pooling="last", max_tokens=64, dtype="float32", **options)


@pytest.mark.parametrize("fault", WRONG)
def test_weights_that_are_not_those_of_the_architecture(fault, tiny_base, tmp_path):
    change, words = WRONG[fault]
    with pytest.raises(ModelError, match=words):
        build(changed(tiny_base, tmp_path / "base", change))
    saved = antiphon.save(build(tiny_base), tmp_path / "saved")
    with pytest.raises(CheckpointError, match=words):
        antiphon.load(changed(saved, tmp_path / "broken", change))


@pytest.mark.parametrize("fault", CONFIGS)
def test_a_configuration_of_another_depth(fault, tiny_base, tmp_path):
    change, words = CONFIGS[fault]
    shutil.copytree(tiny_base, tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ModelError, match=words):
        build(tmp_path / "base")


def test_what_an_embedder_does_not_need_may_be_missing_or_left_over(tiny_base, tmp_path):
    wanted = encode(build(tiny_base), unlike_texts())
    without_head = changed(tiny_base, tmp_path / "headless", lambda tensors: _without(tensors, "lm_head"))
    with_tower = changed(
        tiny_base, tmp_path / "tower", lambda tensors: {**tensors, "vision_tower.patch.weight": torch.zeros(2, 2)}
    )
    for base in (without_head, with_tower):
        assert compare(encode(build(base), unlike_texts()), wanted).equal
    with pytest.raises(CheckpointError, match="untied head was not found"):
        antiphon.save(build(without_head), tmp_path / "saved")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_every_family_is_saved_and_read_back(family, tmp_path):
    """Heads under another name (GPT-NeoX) and with a bias (Phi) too."""
    model = build(make_base(tmp_path / "base", family))
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    assert compare(encode(again, unlike_texts()), encode(model, unlike_texts())).equal
    if family in ("phi", "gpt_neox"):
        base, saved = (load_file(tmp_path / folder / "model.safetensors") for folder in ("base", "saved"))
        heads = [name for name in base if name.startswith(("lm_head", "embed_out"))]
        assert heads
        assert all(torch.equal(base[name], saved[name]) for name in heads)


def test_weights_as_a_pytorch_file_are_saved_with_their_head(tiny_base, tmp_path):
    shutil.copytree(tiny_base, tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "base" / "pytorch_model.bin")
    saved = antiphon.save(build(tmp_path / "base"), tmp_path / "saved")
    assert torch.equal(load_file(saved / "model.safetensors")["lm_head.weight"], tensors["lm_head.weight"])


@pytest.fixture
def adapter(tiny_base, tmp_path):
    """An adapter that does something, and the vectors of its base under it."""
    model = build(tiny_base)
    attach(model, Lora(rank=2, dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model[0].model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model


def test_an_adapter_is_taken_whole_or_not_at_all(adapter, tiny_base, tmp_path):
    folder, adapted = adapter
    model = build(tiny_base)
    adapt(model, folder)
    assert compare(encode(model, unlike_texts()), encode(adapted, unlike_texts())).equal
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, change in {
        "renamed": {f"x.{key}": value for key, value in tensors.items()},
        "half": dict(list(tensors.items())[::2]),
    }.items():
        shutil.copytree(folder, tmp_path / name)
        save_file(change, tmp_path / name / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="is not one for this model: it has no tensor"):
            adapt(build(tiny_base), tmp_path / name)
    other = make_base(tmp_path / "another-base", initializer_range=0.3)
    with pytest.raises(ModelError, match=r"was trained on .* and the model is"):
        adapt(build(other), folder)
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        adapt(build(tiny_base), tmp_path / "nothing")


def test_a_model_with_adapters_is_saved_merged_and_stays_as_it_is(adapter, tmp_path):
    _, adapted = adapter
    before = encode(adapted, unlike_texts())
    again = antiphon.load(antiphon.save(adapted, tmp_path / "saved"))
    assert not [name for name in load_file(tmp_path / "saved" / "model.safetensors") if "base_layer" in name]
    assert compare(encode(again, unlike_texts()), before).equal
    assert compare(encode(adapted, unlike_texts()), before).equal


def test_a_folder_that_is_only_an_adapter_is_saved_as_the_merged_model(adapter, tmp_path):
    _, adapted = adapter
    adapted.save(str(tmp_path / "stock"))
    assert (tmp_path / "stock" / "adapter_config.json").exists()
    loaded = antiphon.load(tmp_path / "stock")
    again = antiphon.load(antiphon.save(loaded, tmp_path / "merged"))
    wanted = encode(adapted, unlike_texts())
    assert compare(encode(loaded, unlike_texts()), wanted).equal
    assert compare(encode(again, unlike_texts()), wanted).equal
