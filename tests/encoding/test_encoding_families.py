"""The fast path serves every family that is supported, under whatever its decoder calls its cache."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import MODEL_TYPES, make_base, vectors

import antiphon
from antiphon.encoding.support import FAMILIES
from antiphon.model.parity import compare, unlike_texts

RUN = {name: kind for name, kind in MODEL_TYPES.items() if kind in FAMILIES}
INSTRUCTION = "Given a question about the text, find the passage that answers it"


def served(model) -> None:
    """Packed vectors are the model's own, also where an instruction is shared and the last layer is pruned."""
    encoder = antiphon.Encoder(model)
    assert encoder.reason is None
    texts = unlike_texts()
    for given in ({}, {"prompt": INSTRUCTION}):
        same = compare(encoder.encode(texts, **given), vectors(model, texts, **given))
        assert same.equal, same
    assert encoder.reason is None


def test_every_supported_family_is_run_here():
    assert set(RUN.values()) == FAMILIES


@pytest.mark.parametrize("family", RUN)
def test_every_family_is_served_packed(family, tmp_path):
    base = make_base(tmp_path / family, family)
    served(antiphon.build(base, "echo", pooling="mean", max_tokens=128, dtype="float32"))
    served(antiphon.build(base, "classical", pooling="last", max_tokens=128, dtype="float32"))


def test_nano_is_served_packed():
    served(antiphon.build("nano", "echo", max_tokens=128, dtype="float32"))


def test_the_argument_of_the_cache_is_asked_of_the_model():
    """A family with a name of its own is served as well: the layers are called by the name that the model uses."""
    import torch
    from torch import nn

    from antiphon import compat

    class Old(nn.Module):
        def forward(self, hidden, past_key_values=None):
            return hidden

    class New(nn.Module):
        def forward(self, hidden, cache=None, **kwargs):
            return hidden

    class Without(nn.Module):
        def forward(self, hidden):
            return hidden

    assert compat.cache_argument(Old()) == "past_key_values"
    assert compat.cache_argument(New()) == "cache"
    with pytest.raises(antiphon.errors.ModelError, match="Without takes no cache"):
        compat.cache_argument(Without())
    assert compat.cache_given({"mask": torch.zeros(1), "layer_past": np.zeros(1)}, np.ndarray) == "layer_past"
