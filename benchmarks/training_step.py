"""A Stage I or Stage II step of a real model: its CPU seconds, what they go to, and its gradients.

    python benchmarks/training_step.py .cache/real/smollm2/*.gguf [--stage one two] [--pairs 8] [--rounds 3]
        [--layers 6] [--autocast] [--compile] [--full] [--cached 1024] [--profile] [--gradients FILE]

Pairs of docstrings, each side of at most 96 tokens; Stage II trains adapters of rank 16, or all weights with --full.
The share of the ceiling is of what the tokens need (padding and a gradient cache's second forward not counted) at the
rate of the product 1024 x 576 x 1536; a first step is not counted. --gradients keeps the gradients in FILE where there
is none, and else says how far these are from those in it, against their norm: run it on two commits to see that a
change of speed is one of speed only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from encoder import Clock, ceiling
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch.profiler import ProfilerActivity, profile
from training import WORKLOADS, Features, batch_of, packed

import antiphon
from antiphon.model.flops import forward_flops, shape_of_decoder, vocabulary_flops
from antiphon.training.compiled_layers import compiled_layers
from antiphon.training.losses import ContrastiveLoss, ContrastiveSettings, ReconstructionLoss

TOKENS, RANK = 96, 16
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WORKLOAD = {"one": WORKLOADS[2], "two": WORKLOADS[0]}


def made(stage: str, options: argparse.Namespace) -> tuple[SentenceTransformer, torch.nn.Module]:
    """Return the model and the loss of a stage."""
    torch.manual_seed(0)
    model = antiphon.build(
        options.model,
        "classical",
        pooling="last",
        max_tokens=TOKENS,
        dtype="float32",
        device="cpu",
        layers=options.layers,
    )
    model.prompts = {"query": "", "document": ""}
    if stage == "one":
        return model.train(), packed(ReconstructionLoss(model))
    if not options.full:
        model[0].model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(PARTS)))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zeros would leave lora_A without a gradient
                torch.nn.init.normal_(parameter, std=0.02)
    settings = ContrastiveSettings(mask_identical_texts=False, mini_batch_tokens=options.cached)
    return model.train(), packed(ContrastiveLoss(model, settings))


def needed(stage: str, options: argparse.Namespace, model: SentenceTransformer, features: Features) -> float:
    """Return the floating point operations that the tokens of a batch need, forward and backward.

    A backward takes the products of the forward once for the states and once for the weights, where they learn.
    """
    shape = shape_of_decoder(model[0].model)
    learned = stage == "one" or options.full
    lengths = [column["attention_mask"].sum(dim=1).tolist() for column in features]
    decoded = [column["content_mask"].sum(dim=1).tolist() for column in features] if stage == "one" else []
    total = 0.0
    for length in (length for column in (*lengths, *decoded) for length in column):
        products = 2.0 * shape.active * length
        total += (3 if learned else 2) * products + 3 * (forward_flops(shape, length) - products)
        total += 0 if learned else 3 * 2.0 * shape.adapter_parameters(RANK) * length
    return total + 3 * vocabulary_flops(shape, sum(map(sum, decoded)))


def step(loss: torch.nn.Module, features: Features, *, autocast: bool) -> float:
    """Return the CPU seconds of forward and backward."""
    loss.zero_grad(set_to_none=True)
    fresh = [dict(column) for column in features]
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = loss(fresh, None)
        value = sum(found.values()) if isinstance(found, dict) else found
    value.backward()
    return time.process_time() - began


def compared(loss: torch.nn.Module, file: Path) -> str:
    """Keep the gradients, or return how far they are from those that were kept."""
    ours = {name: one.grad.clone() for name, one in loss.named_parameters() if one.grad is not None}
    if not file.exists():
        save_file(ours, file)
        return f"gradients of {len(ours)} parameters kept in {file}"
    theirs = load_file(file)
    if set(ours) != set(theirs):
        return f"gradients of other parameters: {sorted(set(ours) ^ set(theirs))[:4]}"
    apart = sum(float((ours[name].double() - theirs[name].double()).norm() ** 2) for name in ours) ** 0.5
    norm = sum(float(one.double().norm() ** 2) for one in theirs.values()) ** 0.5
    return f"gradients off by {apart / norm:.1e} of their norm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--stage", nargs="+", choices=WORKLOAD, default=list(WORKLOAD))
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--layers", type=int, help="only so many of the first layers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--autocast", action="store_true", help="compute in bf16")
    parser.add_argument("--compile", action="store_true", help="compile the layers, as a stage's `compile` does")
    parser.add_argument("--full", action="store_true", help="train all weights in Stage II, no adapters")
    parser.add_argument("--cached", type=int, help="tokens of a mini-batch of Stage II's gradient cache")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--gradients", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = Clock(processor=True, device="cpu")
    for stage in options.stage:
        model, loss = made(stage, options)
        features = batch_of(WORKLOAD[stage], model, options.pairs)
        tokens = sum(int(column["attention_mask"].sum()) for column in features)
        with ExitStack() as compiled:
            if options.compile:
                precision = "bf16" if options.autocast else "float32"
                compiled.enter_context(compiled_layers(model, loss.packer, precision))
            first, *seconds = [step(loss, features, autocast=options.autocast) for _ in range(1 + options.rounds)]
            if options.profile:
                with profile(activities=[ProfilerActivity.CPU], record_shapes=False) as found:
                    step(loss, features, autocast=options.autocast)
                print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        top = ceiling(clock, "cpu", "bfloat16" if options.autocast else "float32", size=1024)
        share = needed(stage, options, model, features) / middle / top
        print(
            f"stage {stage}: {tokens} tokens, {middle:.2f} CPU s a step ({low:.2f} to {high:.2f}; the first {first:.1f}"
            f"), {share:.0%} of the ceiling ({top / 1e9:.0f} GFLOP/s)",
            flush=True,
        )
        if options.gradients is not None:
            print(compared(loss, options.gradients.with_suffix(f".{stage}.safetensors")))


if __name__ == "__main__":
    main()
