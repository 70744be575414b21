"""What the papers and their repositories say about each figure of the recipes, and why ours differs where it does.

A figure that is equal needs no reason; one that nobody says is UNKNOWN; a recipe that nobody published has None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"
Figures = Mapping[str, Any]
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_LORA = {"lora.rank": 16, "lora.alpha": 32, "lora.dropout": 0.05, "lora.targets": SEVEN}
_ANCHOR_TWO = {
    "loss": "contrastive", "steps": 1000, "batch_size": 1024, "learning_rate": 2e-4, "warmup_steps": 300,
    "schedule_epochs": 3, "gradient_checkpointing": True, "precision": "bf16-pure", "save_every": UNKNOWN,
    "settings.temperature": 0.02, "settings.gather_across_devices": True, **_LORA,
}  # fmt: skip
_ANCHOR_ONE = {
    "loss": "reconstruction", "steps": 2000, "batch_size": 512, "device_batch_size": 32, "learning_rate": 4e-5,
    "warmup_steps": 300, "schedule": "linear", "schedule_epochs": 3, "weight_decay": UNKNOWN,
    "gradient_checkpointing": True, "precision": "bf16-pure", "save_every": 1000, "settings.alpha": 0.2,
    "settings.preset": "as_published",
}  # fmt: skip
_MNTP = {
    "loss": "mntp", "steps": 1000, "batch_size": 32, "learning_rate": 5e-5, "schedule_epochs": 3,
    "precision": "bf16-pure", "settings.share": 0.2, "settings.style": "bert", "settings.token": "_", "data.block": 512,
    **_LORA,
}  # fmt: skip
_SIMCSE = {
    "loss": "simcse", "steps": 1000, "batch_size": 128, "learning_rate": 3e-5, "max_tokens": 128,
    "schedule_epochs": 3, "precision": "bf16-pure", "settings.dropout": 0.3, "settings.temperature": 0.05, **_LORA,
}  # fmt: skip
_SUPERVISED = {
    "loss": "contrastive", "steps": 1000, "batch_size": 512, "learning_rate": 2e-4, "warmup_steps": 300,
    "schedule_epochs": 3, "gradient_checkpointing": True, "precision": "bf16-pure", "settings.temperature": 0.02,
    "settings.gather_across_devices": True, **_LORA,
}  # fmt: skip
_ECHO = {
    "loss": "contrastive", "steps": 720, "batch_size": 2048, "learning_rate": 8e-4, "warmup_steps": UNKNOWN,
    "schedule": UNKNOWN, "gradient_checkpointing": UNKNOWN, "precision": UNKNOWN, "settings.temperature": 0.02,
    "settings.mini_batch_size": UNKNOWN, "settings.gather_across_devices": UNKNOWN, "lora.rank": 16, "lora.alpha": 16,
    "lora.dropout": UNKNOWN, "lora.targets": UNKNOWN, "lora.train_eos": True,
}  # fmt: skip


def _stage(name: str, figures: Figures) -> dict[str, Any]:
    return {f"stage.{name}.{key}": value for key, value in figures.items()}


_ANCHOR_MODEL = {
    "seed": 42, "model.base": "meta-llama/Llama-3.2-1B-Instruct", "model.template": "anchor", "model.pooling": "last",
    "model.max_tokens": 512, "model.dtype": "bfloat16", "model.attention": "flash_attention_2", "plan.gpu": UNKNOWN,
    "plan.gpus": 8,
}  # fmt: skip
_LLM2VEC_MODEL = {
    "seed": 42, "model.base": "princeton-nlp/Sheared-LLaMA-1.3B", "model.template": "llm2vec", "model.pooling": "mean",
    "model.max_tokens": 512, "model.bidirectional": True, "model.attention": "flash_attention_2", "plan.gpu": "A100",
}  # fmt: skip
_ECHO_MODEL = {
    "seed": UNKNOWN, "model.base": "mistralai/Mistral-7B-Instruct-v0.1", "model.template": "echo-readme",
    "model.pooling": "last", "model.max_tokens": UNKNOWN, "model.bidirectional": False, "model.dtype": UNKNOWN,
    "model.attention": UNKNOWN, "plan.gpu": "A100", "plan.gpus": 4,
}  # fmt: skip
_ANCHOR = {**_ANCHOR_MODEL, **_stage("reconstruction", _ANCHOR_ONE), **_stage("contrastive", _ANCHOR_TWO)}
_ECHO_RUN = {**_ECHO_MODEL, **_stage("contrastive", _ECHO)}
_MNTP_STAGE = _stage("mntp", _MNTP)
_ALL = {"plan.gpus": 8}

PUBLISHED: Mapping[str, Figures | None] = {
    "anchor/anchor": _ANCHOR,
    "anchor/anchor-as-published": _ANCHOR,
    "anchor/baseline": {**_ANCHOR_MODEL, **_stage("contrastive", _ANCHOR_TWO)},
    "anchor-echo/anchor-echo": None,
    "echo/echo": _ECHO_RUN,
    "echo/echo-matched": {**_ECHO_RUN, "stage.contrastive.steps": 360},
    "echo/classical": {**_ECHO_RUN, "model.template": UNKNOWN},
    "echo/bidirectional": {**_ECHO_RUN, "model.template": UNKNOWN, "model.bidirectional": True},
    "llm2vec/mntp": {**_LLM2VEC_MODEL, "data.block": 512, **_MNTP_STAGE},
    "llm2vec/simcse": {**_LLM2VEC_MODEL, **_MNTP_STAGE, **_stage("simcse", _SIMCSE)},
    "llm2vec/supervised": {**_LLM2VEC_MODEL, **_ALL, **_MNTP_STAGE, **_stage("contrastive", _SUPERVISED)},
    "qwen3-0.6b/qwen3-0.6b": None,
}
"""By recipe; the figures of its default variant."""

_ONE, _TWO = "stage.reconstruction", "stage.contrastive"
_AB = {f"{_TWO}.steps": 200, f"{_TWO}.save_every": 25, f"{_TWO}.keep": UNKNOWN}
_BASES = {
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B-Instruct",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
}
VARIANTS: Mapping[str, Figures] = {
    "llama-3.2-1b": {f"{_ONE}.batch_size": 512, f"{_ONE}.device_batch_size": 32},
    "qwen2.5-1.5b": {f"{_ONE}.batch_size": 1024, f"{_ONE}.device_batch_size": 32},
    "llama-3.2-3b": {
        f"{_ONE}.batch_size": 1024, f"{_ONE}.device_batch_size": 16, f"{_TWO}.device_batch_size": 64,
    },
    "mistral-7b": {
        "model.base": UNKNOWN, f"{_ONE}.batch_size": UNKNOWN, f"{_ONE}.device_batch_size": UNKNOWN,
        f"{_TWO}.device_batch_size": UNKNOWN, "stage.mntp.settings.share": 0.8, "stage.mntp.settings.style": "all",
    },
    "llama-3.1-8b": {
        f"{_ONE}.batch_size": 512, f"{_ONE}.device_batch_size": 1, f"{_TWO}.device_batch_size": 32,
    },
    "qwen2.5-1.5b-chatml": {
        "model.template": "anchor", f"{_ONE}.batch_size": 1024, f"{_ONE}.device_batch_size": 32,
    },
    "llama-3.2-1b-ab": {**_AB, f"{_TWO}.batch_size": 512},
    "llama-3.2-3b-ab": {**_AB, f"{_TWO}.device_batch_size": UNKNOWN},
    "llama-3.1-8b-ab": {**_AB, f"{_TWO}.device_batch_size": UNKNOWN},
    "mistral-7b-mean": {"model.pooling": "mean"},
    "s-llama-1.3b": {},
    "s-llama-1.3b-mean": {"model.pooling": "mean"},
}  # fmt: skip
"""What a variant sets, by its name; a base is the one that its name says."""
VARIANT_BASES: Mapping[str, str] = {
    **_BASES,
    "qwen2.5-1.5b-chatml": _BASES["qwen2.5-1.5b"],
    **{f"{name}-ab": _BASES[name] for name in ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b")},
    "s-llama-1.3b": "princeton-nlp/Sheared-LLaMA-1.3B",
    "s-llama-1.3b-mean": "princeton-nlp/Sheared-LLaMA-1.3B",
    "mistral-7b-mean": "mistralai/Mistral-7B-Instruct-v0.1",
}
ECHO_MISTRAL, LLM2VEC_MISTRAL = "mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mistral-7B-Instruct-v0.2"

_PURE = "float32 weights keep updates that bf16 ones lose; precision = 'bf16-pure' has theirs"
REASONS: Mapping[str, str] = {
    "model.dtype": _PURE,
    "precision": _PURE,
    "settings.preset": "the paper's Algorithm 1; anchor-as-published has theirs",
    "model.attention": "flash-attention has no bidirectional mask for every family; the vectors are the same",
    "model.template": "the paper's own spaces; echo-readme is the code's string",
    "chatml": "what their Qwen wrapper, which is never called, would say",
    "matched": "echo with the text cut so that both copies take the tokens of one (section 4.7)",
    "lora.targets": "all linear layers: of these models they are the seven",
}
"""Why a figure is another here, by the end of its name."""
