"""Forty families: what is saved is what is loaded, and a tensor that is missing, renamed or cut is a sentence."""

from __future__ import annotations

import shutil

import pytest
from architectures import FAMILIES, make_family
from conftest import train_tokenizer
from safetensors.torch import load_file, save_file

import antiphon
from antiphon.errors import ModelError
from antiphon.model.parity import compare, encode, unlike_texts


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("byte-level")


def spoilt(base, folder, how):
    """A copy of a base with one decoder tensor missing, renamed or cut, and the tensor's name."""
    shutil.copytree(base, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if ".1." in name and tensors[name].ndim > 1)
    tensor = tensors.pop(name)
    if how == "renamed":
        tensors[name.replace(".1.", ".one.")] = tensor
    elif how == "cut":
        tensors[name] = tensor[:-1].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_saves_what_it_is_and_takes_no_other_weights(family, tokenizer, tmp_path):
    base = make_family(tmp_path / "base", family, tokenizer)
    model = antiphon.build(str(base), max_tokens=128)
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    same = compare(encode(model, unlike_texts()), encode(again, unlike_texts()), limit=1e-3)
    assert same.equal, same
    for how in ("missing", "renamed", "cut"):
        name = spoilt(base, tmp_path / how, how)
        with pytest.raises(ModelError) as caught:
            antiphon.build(str(tmp_path / how), max_tokens=128)
        assert str(tmp_path / how) in str(caught.value), (how, name, caught.value)
        assert "\n" not in str(caught.value)
