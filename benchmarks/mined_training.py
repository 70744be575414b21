"""Training with mined negatives against training without: nano, short contrastive runs, several seeds.

    python benchmarks/mined_training.py PAIRS.jsonl [PAIRS.jsonl ...] --work DIR --seeds 1 2 3

The last pairs of every file are kept apart, and their queries search among all held-out positives (nDCG@10). Negatives
are mined from the training positives by the model of the first run without them (relative margin 0.05, one a query).
A run that was finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import antiphon
from antiphon.corpus.mining_settings import MiningSettings
from antiphon.data.pairs import Pair, load, to_dataset
from antiphon.evaluation.statistics import ndcg
from antiphon.model.unit_vectors import unit

RECIPE = """
name = "mined"
seed = {seed}

[model]
base = "nano"
template = "classical"
pooling = "last"
max_tokens = 64

[data]
sets = [{{ name = "pairs", source = "{source}" }}]

[[stage]]
name = "contrastive"
loss = "contrastive"
steps = {steps}
batch_size = {batch}
learning_rate = 5e-4
warmup_steps = 5
log_every = 10
"""
Pairs = list[tuple[str, str]]


def read_pairs(paths: list[Path], taken: int, held: int) -> tuple[Pairs, Pairs]:
    """Return pairs to train on and pairs to test on, of every file alike; no text is in two of them."""
    training: Pairs = []
    test: Pairs = []
    seen: set[str] = set()
    for path in paths:
        rows = load(path, limit=2 * (taken + held), negatives=0)
        distinct = []
        for pair in zip(rows["anchor"], rows["positive"], strict=True):
            if not seen & set(pair):
                seen.update(pair)
                distinct.append(pair)
        test += distinct[-held:]
        training += distinct[: min(taken, len(distinct) - held)]
    return training, test


def trained(folder: Path, source: Path, options: argparse.Namespace, seed: int) -> Path:
    """Return the folder of a model, trained where it is not there yet."""
    if not (folder / "run" / "modules.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE.format(seed=seed, source=source.resolve(), steps=options.steps, batch=options.batch))
        antiphon.train(recipe, overrides={"out": str(folder / "run")}, progress=False)
    return folder / "run"


def scored(model: Path | str, test: Pairs) -> float:
    loaded = antiphon.build("nano", max_tokens=64) if model == "nano" else antiphon.load(model, device="cpu")
    encoder = antiphon.Encoder(loaded)
    queries, documents = encoder.encode_query([one for one, _ in test]), encoder.encode_document([d for _, d in test])
    return float(np.mean(ndcg(unit(queries) @ unit(documents).T)))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--taken", type=int, default=600)
    parser.add_argument("--held", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    training, test = read_pairs(options.pairs, options.taken, options.held)
    plain, mined = options.work / "plain.jsonl", options.work / "mined.jsonl"
    write(plain, [{"query": query, "positive": positive} for query, positive in training])
    print(f"{len(training)} pairs to train on, {len(test)} to test on", flush=True)
    gains = []
    for seed in options.seeds:
        began = time.monotonic()
        without = scored(trained(options.work / f"without-{seed}", plain, options, seed), test)
        if not mined.exists():
            teacher = antiphon.load(options.work / f"without-{options.seeds[0]}" / "run", device="cpu")
            rows = antiphon.mine(
                teacher, to_dataset([Pair(*pair) for pair in training]), progress=False,
                settings=MiningSettings(negatives=1, relative_margin=0.05),
            )  # fmt: skip
            columns = {"query": rows["anchor"], "positive": rows["positive"], "negative": rows["negative_1"]}
            found = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            write(mined, [{name: text for name, text in row.items() if text} for row in found])
        with_them = scored(trained(options.work / f"with-{seed}", mined, options, seed), test)
        gains.append(with_them - without)
        print(f"seed {seed}: nDCG@10 {without:.4f} without, {with_them:.4f} with, {gains[-1]:+.4f} "
              f"({time.monotonic() - began:.0f} s)", flush=True)  # fmt: skip
    print(f"mean gain {np.mean(gains):+.4f}, from {min(gains):+.4f} to {max(gains):+.4f}")


if __name__ == "__main__":
    main()
