"""Folders of models of images and text: the text model is taken out, or one sentence says why not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import SIZES, train_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    LlavaConfig,
    Mistral3Config,
    PretrainedConfig,
    Qwen2VLConfig,
)

import antiphon
from antiphon.errors import ModelError
from antiphon.model.parity import compare, encode, unlike_texts

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def configuration(kind: str, text: dict[str, object]) -> PretrainedConfig:
    tied = text["tie_word_embeddings"]
    if kind == "gemma3":
        return Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4, tie_word_embeddings=tied)
    if kind == "llava":
        llama, clip = {**text, "model_type": "llama"}, {**VISION, "model_type": "clip_vision_model"}
        return LlavaConfig(text_config=llama, vision_config=clip, tie_word_embeddings=tied)
    if kind == "mistral3":
        mistral, pixtral = {**text, "model_type": "mistral"}, {**VISION, "model_type": "pixtral", "head_dim": 8}
        return Mistral3Config(text_config=mistral, vision_config=pixtral, tie_word_embeddings=tied)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    vision = {"embed_dim": 16, "depth": 1, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 1}
    return Qwen2VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=tied)


def make_folder(folder, kind: str, *, tied: bool):
    """Write a tiny random model of images and text, with the settings of an image processor as real folders have."""
    words = train_tokenizer("byte-level")
    text = {**SIZES, "vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    torch.manual_seed(3)
    whole = AutoModelForImageTextToText.from_config(configuration(kind, {**text, "tie_word_embeddings": tied}))
    whole.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": f"{kind.title()}Processor"}))
    return whole.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["gemma3", "llava", "mistral3"])
@torch.inference_mode()
def test_the_text_model_is_taken_out_and_saved_as_a_plain_one(kind, tied, tmp_path):
    whole = make_folder(tmp_path / "base", kind, tied=tied)
    model = antiphon.build(tmp_path / "base", max_tokens=128)
    features = model.preprocess(["The cat sat."])
    read = {key: features[key] for key in ("input_ids", "attention_mask")}
    meant = whole(**read, output_hidden_states=True)
    states = model.encode("The cat sat.", output_value="token_embeddings")
    assert np.abs(np.asarray(states) - meant.hidden_states[-1][0].numpy()).max() < 1e-5
    saved = antiphon.save(model, tmp_path / "saved")
    assert "vision_config" not in json.loads((saved / "config.json").read_text())
    assert not any("vision" in name for name in load_file(saved / "model.safetensors"))
    texts = unlike_texts()
    assert compare(encode(antiphon.load(saved), texts), encode(model, texts)).equal
    plain = AutoModelForCausalLM.from_pretrained(saved, dtype="float32")
    assert torch.allclose(plain(**read).logits, meant.logits, atol=1e-4)


def test_a_text_model_that_transformers_does_not_have_is_a_sentence(tmp_path):
    make_folder(tmp_path / "base", "qwen2_vl", tied=True)
    with pytest.raises(ModelError, match=r"qwen2_vl\), and transformers has no causal language model of its text's"):
        antiphon.build(tmp_path / "base", max_tokens=128)


def test_a_text_model_with_a_weight_missing_is_a_sentence(tmp_path):
    make_folder(tmp_path / "base", "gemma3", tied=True)
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "language_model" in name and "layers.1" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"hold no .*layers\.1.*, so its text model would be random"):
        antiphon.build(tmp_path / "base", max_tokens=128)
