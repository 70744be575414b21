"""The Encoder against sentence-transformers' own encode, in one process, on a random model or a real one: ratios.

    .venv/bin/python benchmarks/encoder.py --layers 30 --threads 1
    .venv/bin/python benchmarks/encoder.py --model .cache/real/smollm2/*.gguf --threads 1 --dtype float32
    .venv/bin/python benchmarks/encoder.py --growth

Both run in the same dtype, in turns; each figure is the median of paired ratios, with the lowest and highest. On a
machine that others use, take `--threads 1`: then CPU seconds are counted and not the clock's.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.utils import logging as transformers_logging

import antiphon
from antiphon import nano
from antiphon.model import parity

INSTRUCTION = (
    "Given a question of a user about a program, retrieve the passages of its documentation that answer the question "
    "in full, with what is needed to try it"
)
BATCH_SIZES = (4, 8, 16, 32, 64, 128)
DEFAULT = 32
"""sentence-transformers' batch size where none is given."""
ARMS: dict[str, dict[str, Any]] = {
    "eager": {},
    "compiled": {"compile": True, "linear": "plain"},
    "prepacked": {"compile": True, "linear": "prepacked"},
    "float8": {"compile": True, "linear": "float8"},
}
"""The Encoder's settings by name."""


def base(folder: Path, layers: int, width: int, vocabulary: int) -> Path:
    """Write a random Llama of SmolLM-135M's shape (30 layers, width 576), or another."""
    torch.manual_seed(0)
    heads = max(1, width // 64)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 3),
        head_dim=64,
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(nano.folder()).save_pretrained(folder)
    return folder


def texts(number: int, median: int, spread: float, most: int) -> list[str]:
    """Return texts of real words whose lengths are log-normal, as those of passages and queries are."""
    draw = random.Random(0)
    words = " ".join(parity.unlike_texts()).split()
    counts = [min(most, max(2, round(draw.lognormvariate(0, spread) * median))) for _ in range(number)]
    return [" ".join(draw.choices(words, k=count)) for count in counts]


class Clock:
    """Seconds of the processor where one thread is used, else of the wall."""

    def __init__(self, *, processor: bool, device: str) -> None:
        self.read = time.process_time if processor else time.perf_counter
        self.device = device

    def __call__(self, work: Callable[[], object]) -> float:
        began = self.read()
        work()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.read() - began


def best_batch_size(model: SentenceTransformer, sample: list[str], prompt: str, clock: Clock, sizes: list[int]) -> int:
    if len(sizes) == 1:
        return sizes[0]
    taken = {size: clock(lambda size=size: plain(model, sample, prompt, size)) for size in sizes}
    return min(taken, key=lambda size: taken[size])


def plain(model: SentenceTransformer, chosen: list[str], prompt: str, size: int = DEFAULT) -> np.ndarray:
    return model.encode(chosen, prompt=prompt, batch_size=size, show_progress_bar=False)


def flops(model: SentenceTransformer, chosen: list[str], prompt: str) -> float:
    """Return the multiplications and additions that the texts need without padding and without any saving."""
    decoder = model[0].model
    weights = sum(parameter.numel() for layer in decoder.layers for parameter in layer.parameters())
    width = decoder.config.num_attention_heads * 64
    total = 0.0
    for text in chosen:
        tokens = model.preprocess([text], prompt=prompt)["input_ids"].shape[1]
        total += 2.0 * weights * tokens + 2.0 * len(decoder.layers) * tokens * tokens * width
    return total


def ceiling(clock: Clock, device: str, dtype: str, *, size: int = 2048) -> float:
    """Return FLOP/s of the matrix product 2048 x 576 x 1536."""
    scale = 8 if device == "cuda" else 1
    a, b = torch.randn(size * scale, 576 * scale), torch.randn(1536 * scale, 576 * scale)
    a, b = a.to(device, getattr(torch, dtype)), b.to(device, getattr(torch, dtype))
    torch.nn.functional.linear(a, b)
    seconds = min(clock(lambda: torch.nn.functional.linear(a, b)) for _ in range(20))
    return 2.0 * a.numel() * b.shape[0] / seconds


def compare(
    name: str,
    model: SentenceTransformer,
    encoders: dict[str, antiphon.Encoder],
    chosen: list[str],
    prompt: str,
    options: argparse.Namespace,
    clock: Clock,
) -> None:
    size = best_batch_size(model, chosen[:: max(1, len(chosen) // 256)], prompt, clock, options.sizes)
    for encoder in encoders.values():
        encoder.encode(chosen[:128], prompt=prompt)  # what is built or probed once
    runs = {"default": lambda: plain(model, chosen, prompt)}
    if size != DEFAULT:
        runs["best"] = lambda: plain(model, chosen, prompt, size)
    against = [
        (key, name) for key, name in (("default", f"{DEFAULT}, default"), ("best", f"{size}, best")) if key in runs
    ]
    for arm, encoder in encoders.items():
        runs[arm] = lambda encoder=encoder: encoder.encode(chosen, prompt=prompt)
    taken: dict[str, list[float]] = {key: [] for key in runs}
    tops: list[float] = []  # one a pair, since a machine's pace changes
    for pair in range(options.pairs):
        for key in list(runs) if pair % 2 == 0 else reversed(list(runs)):
            taken[key].append(clock(runs[key]))
        tops.append(ceiling(clock, options.device, options.dtype))
    needed = flops(model, chosen, prompt)
    sample = chosen[:: max(1, len(chosen) // 64)]
    truth = np.asarray(plain(model, sample, prompt), np.float32)
    itself = parity.compare(truth, np.asarray(plain(model, sample, prompt, 1), np.float32), limit=5e-2)
    theirs = shared(needed, taken[against[-1][0]], tops)
    print(f"{name}: sentence-transformers at {theirs} of the ceiling; against itself at batch size 1: {itself}")
    for arm, encoder in encoders.items():
        for key, label in against:
            print(f"  {arm:9} against batch size {label:12} {paired(taken[key], taken[arm])}")
        rate = needed / statistics.median(taken[arm])
        same = parity.compare(truth, encoder.encode(sample, prompt=prompt), limit=5e-2)
        print(
            f"  {arm:9} {rate / 1e9:.0f} GFLOP/s of useful work, {shared(needed, taken[arm], tops)} of the ceiling "
            f"({min(tops) / 1e9:.0f} to {max(tops) / 1e9:.0f}); "
            f"budget {encoder.budget}; {same}"
        )
    first, *others = encoders
    for arm in others:
        print(f"  {arm:9} against {first} {paired(taken[first], taken[arm])}", flush=True)


def shared(needed: float, seconds: list[float], tops: list[float]) -> str:
    """Return which share of the ceiling was used, each run by the ceiling beside it."""
    shares = [needed / taken / top for taken, top in zip(seconds, tops, strict=True)]
    return f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


def paired(theirs: list[float], ours: list[float]) -> str:
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)"


def growth(options: argparse.Namespace) -> None:
    """Print how time and memory grow with the texts, through encode_iter, on a model small enough to see it."""
    with tempfile.TemporaryDirectory() as folder:
        model = antiphon.build(base(Path(folder), 2, 64, 8192), "echo", dtype=options.dtype, device=options.device)
        encoder = antiphon.Encoder(model, budget=2048).require_fast()
        clock = Clock(processor=options.threads == 1 and options.device == "cpu", device=options.device)
        for number in (number for number in (1_000, 10_000, 100_000, 200_000) if number <= options.most):
            pieces = (f"{number} {text}" for number, text in enumerate(texts(1000, 12, 0.4, 40) * (number // 1000)))
            seconds = clock(lambda pieces=pieces: sum(1 for _ in encoder.encode_iter(pieces)))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{number:7} texts: {seconds:7.2f} s, {seconds / number * 1e6:.0f} us a text, peak {peak:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--passages", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=["eager"], help="settings of the Encoder, side by side"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=BATCH_SIZES,
        help="among them the best is looked for; 32 alone leaves it out",
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--model", help="a real model instead of a random one: a folder or a GGUF file")
    parser.add_argument("--most", type=int, default=100_000, help="texts of --growth")
    parser.add_argument("--attention", choices=("sdpa", "matmul"))
    parser.add_argument("--only", nargs="+", help="workloads: queries, passages, echo queries, echo passages")
    parser.add_argument("--growth", action="store_true", help="1k, 10k and 100k texts instead of the ratios")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()
    if options.growth:
        growth(options)
        return
    clock = Clock(processor=options.threads == 1 and options.device == "cpu", device=options.device)
    queries, passages = texts(options.queries, 5, 0.35, 16), texts(options.passages, 70, 0.5, 250)
    workloads = {
        "queries": ("classical", "mean", queries, INSTRUCTION),
        "passages": ("classical", "mean", passages, ""),
        "echo queries": ("echo", "mean", queries, INSTRUCTION),
        "echo passages": ("echo", "mean", passages, ""),
    }
    with tempfile.TemporaryDirectory() as folder:
        source = options.model or base(Path(folder), options.layers, options.width, 49152)
        for name, (template, pooling, chosen, prompt) in workloads.items():
            if options.only and name not in options.only:
                continue
            model = antiphon.build(source, template, pooling=pooling, dtype=options.dtype, device=options.device)
            encoders = {
                arm: antiphon.Encoder(model, attention=options.attention, **ARMS[arm]).require_fast()
                for arm in options.arms
            }
            for arm, encoder in encoders.items():
                built = f"compiled in {encoder.compile_seconds:.1f} s" if encoder.compile_seconds else "as they are"
                print(f"{name}: {arm}: {encoder.mode}, layers {built}, error {encoder.error}", flush=True)
            compare(name, model, encoders, chosen, prompt, options, clock)


if __name__ == "__main__":
    main()
