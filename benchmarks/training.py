"""A training step of ours against sentence-transformers' own loss on the same batch: forward and backward.

    python benchmarks/training.py [--shape tiny|small|medium] [--device cpu|cuda] [--dtype bfloat16|float32]
        [--pairs 24] [--rounds 5] [--only WORD] [--check]

Triples of docstrings (a first line, the rest of it, another one's rest) in their own order, unsorted, through a random
Llama-shaped model. The arms of a workload take turns in one process; a ratio is of two neighbouring measurements, and
medians of them are printed with the lowest and the highest. On a CPU seconds are those of the process, which a busy
machine blurs less than a clock. --check compares loss and gradients of each arm with the first in fp32 and stops.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import antiphon
from antiphon import nano
from antiphon.data.docstrings import of_standard_library, pairs
from antiphon.training.losses import (
    ContrastiveLoss,
    ContrastiveSettings,
    ReconstructionLoss,
    ReconstructionSettings,
    content_collator,
    contrastive_collator,
)

SHAPES = {
    "tiny": {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "small": {
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "medium": {
        "num_hidden_layers": 24,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
}
INSTRUCTION = (
    "Given the first line of a Python function's documentation, retrieve the rest of that documentation, which tells "
    "its arguments and what it returns"
)
VOCABULARY = 131072
"""Of the Stage I workloads, as Llama 3's; the contrastive ones have the tokenizer's own."""
Features = list[dict[str, Any]]
Arm = Callable[[Features], torch.Tensor]


class PlainReconstruction(nn.Module):
    """Stage I as one writes it down: padded passes, all logits at once, cross-entropy in fp32."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        ReconstructionLoss(model, ReconstructionSettings(packed=False))  # hangs the head there, releases padding

    def decode(self, vector_BD: torch.Tensor, target: dict[str, Any]) -> torch.Tensor:
        ids_BT, mask_BT = target["content_ids"], target["content_mask"]
        embedded_BTD = self.model[0].model.get_input_embeddings()(ids_BT)
        inputs = torch.cat([vector_BD[:, None].to(embedded_BTD.dtype), embedded_BTD], dim=1)
        mask = torch.cat([mask_BT.new_ones(len(mask_BT), 1), mask_BT], dim=1)
        features = {"inputs_embeds": inputs, "attention_mask": mask, "modality": "text"}
        states_BTD = self.model({**features, "pool_mask": mask})["token_embeddings"][:, :-1]
        kept = mask_BT.bool()
        return F.cross_entropy((states_BTD[kept] @ self.model[0].head.weight.T).float(), ids_BT[kept])

    def forward(self, features: Features) -> torch.Tensor:
        bare = [{key: value for key, value in part.items() if "content" not in key} for part in features]
        query, document = (self.model(part)["sentence_embedding"] for part in bare)
        return 0.2 * self.decode(query, features[1]) + 0.8 * self.decode(document, features[0])


@dataclass(frozen=True)
class Workload:
    """One batch and what is done with it; the first arm is what the others are measured against."""

    name: str
    template: str
    pooling: str
    vocabulary: int | None
    instructed: bool
    make: Callable[[SentenceTransformer], dict[str, Arm]]


def packed(loss: ContrastiveLoss | ReconstructionLoss) -> ContrastiveLoss | ReconstructionLoss:
    """The loss, if it packs: an arm that fell back to padding is worth nothing."""
    if loss.packer is None:
        raise SystemExit("Texts are padded, not packed, for the reason above; nothing is measured.")
    return loss


def contrastive_arms(model: SentenceTransformer) -> dict[str, Arm]:
    bare = {"mask_identical_texts": False}
    losses = {
        "sentence-transformers": MultipleNegativesRankingLoss(model, scale=50),
        "sentence-transformers, cached by 8": CachedMultipleNegativesRankingLoss(model, scale=50, mini_batch_size=8),
        "antiphon": packed(ContrastiveLoss(model, ContrastiveSettings(**bare))),
        "antiphon, padded": ContrastiveLoss(model, ContrastiveSettings(**bare, packed=False)),
        "antiphon, cached by 2048 tokens": ContrastiveLoss(model, ContrastiveSettings(**bare, mini_batch_tokens=2048)),
    }
    return {name: lambda features, loss=loss: loss(features, None) for name, loss in losses.items()}


def reconstruction_arms(model: SentenceTransformer) -> dict[str, Arm]:
    plain = PlainReconstruction(model)
    losses = {
        "antiphon": packed(ReconstructionLoss(model)),
        "antiphon, padded": ReconstructionLoss(model, ReconstructionSettings(packed=False)),
    }
    return {
        "plain loss": plain,
        **{name: lambda features, loss=loss: sum(loss(features).values()) for name, loss in losses.items()},
    }


WORKLOADS = (
    Workload("contrastive, instructed queries", "classical", "last", None, True, contrastive_arms),
    Workload("contrastive, echo", "echo", "mean", None, True, contrastive_arms),
    Workload("stage one, vocabulary 128k", "classical", "last", VOCABULARY, True, reconstruction_arms),
)


def model_of(workload: Workload, options: argparse.Namespace, folder: Path) -> SentenceTransformer:
    tokenizer = AutoTokenizer.from_pretrained(str(nano.folder()))
    config = LlamaConfig(
        vocab_size=workload.vocabulary or len(tokenizer),
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SHAPES[options.shape],
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(getattr(torch, options.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return antiphon.build(
        folder,
        workload.template,
        pooling=workload.pooling,
        prompts={"query": INSTRUCTION} if workload.instructed else None,
        max_tokens=256,
        dtype=options.dtype,
        device=options.device,
    ).train()


def batch_of(workload: Workload, model: SentenceTransformer, count: int) -> Features:
    found = list(pairs(of_standard_library()))
    chosen = found[:: len(found) // (2 * count)][: 2 * count]
    rows = [
        {"anchor": one.summary, "positive": one.body, "negative": other.body}
        for one, other in zip(chosen[:count], chosen[count:], strict=True)
    ]
    stage_one = workload.make is reconstruction_arms
    collator = content_collator(model) if stage_one else contrastive_collator(model)
    columns = ("anchor", "positive") if stage_one else ("anchor", "positive", "negative")
    collator.prompts = {name: model.prompts["query" if name == "anchor" else "document"] for name in columns}
    collator.router_mapping = {name: "query" if name == "anchor" else "document" for name in columns}
    batch = collator([{name: row[name] for name in columns} for row in rows])
    return [
        {
            key.removeprefix(f"{name}_"): value.to(model.device) if torch.is_tensor(value) else value
            for key, value in batch.items()
            if key.startswith(f"{name}_") and not key.endswith("text_key")
        }
        for name in columns
    ]


def step(model: SentenceTransformer, arm: Arm, features: Features) -> tuple[float, float]:
    """Return the seconds of a step and its loss."""
    model.zero_grad(set_to_none=True)
    fresh = [dict(column) for column in features]
    cuda = model.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    loss = arm(fresh)
    loss.backward()
    if cuda:
        torch.cuda.synchronize()
    return clock() - start, loss.item()


def measure(model: SentenceTransformer, arms: dict[str, Arm], features: Features, rounds: int) -> None:
    names = list(arms)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            seconds, _ = step(model, arms[name], features)
            if number:  # the first round warms up
                taken[name].append(seconds)
        gc.collect()
    first = np.array(taken[names[0]])
    print(f"  {names[0]}: {np.median(first):.2f} s")
    for name in names[1:]:
        low, middle, high = np.quantile(first / np.array(taken[name]), [0, 0.5, 1])
        print(f"  {name}: {middle:.2f}x (from {low:.2f} to {high:.2f}), {np.median(taken[name]):.2f} s")


def check(model: SentenceTransformer, arms: dict[str, Arm], features: Features) -> None:
    wanted: torch.Tensor | None = None
    for name, arm in arms.items():
        _, loss = step(model, arm, features)
        flat = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
        wanted = flat if wanted is None else wanted
        error = float((flat - wanted).norm() / wanted.norm())
        print(f"  {name}: loss {loss:.6f}, relative error of the gradient {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for workload in WORKLOADS:
        if options.only not in workload.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = model_of(workload, options, Path(folder))
            arms = workload.make(model)  # reads the untied head from the folder
        features = batch_of(workload, model, options.pairs)
        lengths = [column["attention_mask"].sum(dim=1).tolist() for column in features]
        places = sum(column["attention_mask"].numel() for column in features)
        print(
            f"{workload.name}: {options.shape}, {options.dtype}, {torch.get_num_threads()} threads, "
            f"{options.pairs} rows, {sum(map(sum, lengths))} tokens in {places} places",
            flush=True,
        )
        (check if options.check else measure)(model, arms, features, *([] if options.check else [options.rounds]))


if __name__ == "__main__":
    main()
