"""LoRA: attached and merged without a trace, the merged model the same as the adapted one."""

from __future__ import annotations

import pytest
import torch
from conftest import make_base

import antiphon
from antiphon.errors import ConfigError
from antiphon.model import parity
from antiphon.model.adapters import Lora, attach, is_adapted, merge
from antiphon.training.losses.head import release_padding

EOS = 2


def trained_by_chance(model):
    """Adapters start as nothing: give them random weights, as training would."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("template", "pooling"), [("echo", "mean"), ("classical", "last")])
def test_merged_equals_adapter_and_survives_a_reload(tmp_path, tied, template, pooling):
    base = make_base(tmp_path / "base", tie_word_embeddings=tied)
    model = antiphon.build(base, template, pooling=pooling, max_tokens=128, dtype="float32", device="cpu")
    names = [name for name, _ in model.named_parameters()]
    plain = parity.encode(model, parity.unlike_texts())
    release_padding(model)
    attach(model, Lora(rank=4, alpha=8, train_eos=True))
    trained_by_chance(model)
    model.eval()
    adapted = parity.encode(model, parity.unlike_texts())
    assert not parity.compare(plain, adapted).equal  # the adapters do something
    merge(model)
    assert not is_adapted(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert parity.compare(adapted, parity.encode(model, parity.unlike_texts())).equal
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"), device="cpu")
    assert parity.compare(adapted, parity.encode(again, parity.unlike_texts())).equal
    # the next stage's adapters stand on the merged weights
    attach(again, Lora(rank=2))
    assert parity.compare(adapted, parity.encode(again, parity.unlike_texts())).equal


def test_only_adapters_are_trained(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", device="cpu")
    attach(model, Lora(rank=2, targets=("q_proj", "v_proj"), train_eos=True))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in learning)
    assert not any("k_proj" in name for name in learning)
    (delta,) = [p for n, p in model.named_parameters() if "trainable_tokens_delta" in n]
    assert delta.shape[0] == 1


def test_wrong_adapters_are_refused(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", device="cpu")
    with pytest.raises(ConfigError, match="LoRA cannot be attached to"):
        attach(model, Lora(targets=("no_such_layer",)))
    merge(model)  # nothing to merge is no error
    attach(model, Lora(rank=2))
    with pytest.raises(ConfigError, match="carries adapters already"):
        attach(model, Lora(rank=2))
