"""Pre-train the embedded model: one loop, on a CPU or a GPU, interrupted and taken up again without loss.

The loop knows token ids only; what they are is corpus.py's business, what is written at the end is card.py's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from tools.nano.corpus import BOS, EOS, PAD, Corpus, rows
from tools.nano.recipe import PretrainRecipe, Schedule, Shape

CHECKPOINT_EVERY = 200
MUON_STARTS = "layers."


def new_model(shape: Shape, corpus: Corpus) -> LlamaForCausalLM:
    """Return an untrained Llama of the given shape for the corpus's tokenizer."""
    ids = {name: corpus.tokenizer.token_to_id(token) for name, token in (("pad", PAD), ("bos", BOS), ("eos", EOS))}
    config = LlamaConfig(
        vocab_size=corpus.tokenizer.get_vocab_size(),
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        pad_token_id=ids["pad"],
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
    )
    return LlamaForCausalLM(config)


def pretrain(
    corpus: Corpus,
    recipe: PretrainRecipe,
    work: Path,
    *,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[LlamaForCausalLM, float]:
    """Train to the recipe's end and return the model with the seconds it took, over all its parts.

    `work` holds the state of an interrupted run, which is taken up where it stopped.
    """
    plan = recipe.training
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(plan.seed)
    model = new_model(recipe.model, corpus).to(device)
    optimisers = _optimisers(model, plan)
    state_file = work / "state.pt"
    first, spent = _restore(state_file, model, optimisers)
    step = first
    while step < plan.steps:
        row = plan.row_at(step)
        segment = [number for number in range(plan.steps) if plan.row_at(number) == row]
        # eager is faster on a CPU for short rows of few heads; long rows want the fused call
        model.set_attn_implementation("sdpa" if device == "cuda" or row > 512 else "eager")
        batches = rows(corpus.train, row=row, batch_tokens=plan.batch_tokens, seed=plan.seed + row)
        for batch in islice(batches, step - segment[0], len(segment)):
            started = time.perf_counter()
            loss = _step(model, optimisers, torch.from_numpy(batch).to(device), plan.rate_at(step))
            spent += time.perf_counter() - started
            step += 1
            on_step(step, loss)
            if step % CHECKPOINT_EVERY == 0 or step == plan.steps:
                _store(state_file, model, optimisers, step, spent)
    return model, spent


def _step(model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer], ids: torch.Tensor, rate: float) -> float:
    """Take one optimiser step on ids of shape (B, T) and return the loss in nats a token."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        loss = next_token_loss(model, ids)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return float(loss.detach())


def next_token_loss(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy, in nats, of ids (B, T) from position 1 on."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    logits = F.linear(hidden, model.lm_head.weight)
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def _optimisers(model: LlamaForCausalLM, plan: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if MUON_STARTS in name and p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    rate, decay = plan.learning_rate, plan.weight_decay
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return optimisers


def _store(
    path: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer], step: int, spent: float
) -> None:
    state = {
        "model": model.state_dict(),
        "optimisers": [o.state_dict() for o in optimisers],
        "step": step,
        "spent": spent,
    }
    temporary = path.with_suffix(".writing")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _restore(path: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer]) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"]), float(state["spent"])


def device_name() -> str:
    """Return what a run here computes on, in words."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    threads = torch.get_num_threads()
    return f"{threads} CPU core{'s' if threads > 1 else ''}"


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, ids: npt.NDArray[np.uint16], *, row: int, most: int = 400_000) -> float:
    """Return exp(mean cross-entropy) over rows of `row` tokens, at most `most` tokens of them."""
    usable = min(len(ids), most) // row * row
    table = torch.from_numpy(ids[:usable].reshape(-1, row).astype(np.int64))
    losses = [float(next_token_loss(model, part.to(model.device))) * len(part) for part in torch.split(table, 16)]
    return float(np.exp(sum(losses) / len(table)))


def unigram_perplexity(train: npt.NDArray[np.uint16], ids: npt.NDArray[np.uint16], vocabulary: int) -> float:
    """Return the perplexity of token frequencies alone, add-one smoothed: what knowing no context costs."""
    counts = np.bincount(train, minlength=vocabulary) + 1.0
    return float(np.exp(-np.log(counts / counts.sum())[ids].mean()))
