"""Tiny configurations of the causal language models of transformers: what differs from `SIZES`, a row each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import SIZES
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

EVEN: dict[str, Any] = {"head_dim": None}
"""Heads share the width evenly."""
OLD: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 64}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "qwen2_moe": {**EXPERTS, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {**EXPERTS, "moe_intermediate_size": 32},
    "mistral": {},
    "ministral": {},
    "mixtral": EXPERTS,
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
    "phi": EVEN,
    "phi3": EVEN,
    "phimoe": {**EVEN, **EXPERTS},
    "gpt_neox": EVEN,
    "gptj": {**OLD, "rotary_dim": 4},
    "gpt2": OLD,
    "gpt_neo": {**EVEN, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_bigcode": OLD,
    "opt": {**EVEN, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": EVEN,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "stablelm": EVEN,
    "olmo": EVEN,
    "olmo2": {},
    "olmo3": {},
    "olmoe": {**EVEN, **EXPERTS},
    "smollm3": {},
    "cohere": EVEN,
    "cohere2": EVEN,
    "granite": EVEN,
    "granitemoe": {**EVEN, **EXPERTS},
    "starcoder2": EVEN,
    "glm": {},
    "glm4": {},
    "ernie4_5": {},
    "helium": {},
    "nemotron": {},
    "exaone4": {},
    "codegen": {**OLD, "rotary_dim": 4},
    "biogpt": EVEN,
    "seed_oss": {},
    "arcee": {},
    "hunyuan_v1_dense": {},
    "apertus": {},
}


def make_family(folder: Path, family: str, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write a tiny random model of a family with a tokenizer, its head its own where the family allows that."""
    torch.manual_seed(7)
    settings = {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    settings |= {"tie_word_embeddings": False, **FAMILIES[family]}
    config = AutoConfig.for_model(family, **{key: value for key, value in settings.items() if value is not None})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
