"""Does MNTP pay? A bidirectional model before and after it: held-out loss, and Spearman on a file of sentence pairs.

    python benchmarks/mntp.py BASE TEXTS.txt PAIRS.tsv --steps 300

Texts are paragraphs, a line each; every tenth is held out. Pairs are tab-separated: sentence1, sentence2, score.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.evaluation.statistics import Sample, paired
from antiphon.model.library_messages import quiet
from antiphon.training.losses import MaskedNextTokenLoss, masking_collator


def held_out_loss(model: SentenceTransformer, texts: list[str]) -> float:
    torch.manual_seed(0)
    loss, collate = MaskedNextTokenLoss(model), masking_collator(model)
    model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(texts), 16):
            batch = collate([{"text": text} for text in texts[start : start + 16]])
            features = {name.removeprefix("text_"): value for name, value in batch.items() if name.startswith("text_")}
            total += float(loss([features])) * len(texts[start : start + 16])
    return total / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("texts", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--template", default="[{text}]")
    options = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    paragraphs = [line.strip() for line in options.texts.read_text(encoding="utf-8").splitlines() if len(line) > 200]
    held_out = paragraphs[::10][:160]
    with options.pairs.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    gold = np.array([float(row["score"]) for row in rows])

    def cosines(model: SentenceTransformer) -> np.ndarray:
        encoder = antiphon.Encoder(model).require_fast()
        sides = [encoder.encode([row[name] for row in rows]) for name in ("sentence1", "sentence2")]
        units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
        return (units[0] * units[1]).sum(axis=1)

    shape = {"template": options.template, "pooling": "mean", "max_tokens": 128}
    models = {"causal": antiphon.build(options.base, **shape, dtype="float32")}
    models["bidirectional"] = antiphon.build(options.base, **shape, bidirectional=True, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        train_texts = Path(folder) / "train.txt"
        train_texts.write_text("\n".join(text for n, text in enumerate(paragraphs) if n % 10), encoding="utf-8")
        stage = {"name": "mntp", "loss": "mntp", "steps": options.steps, "batch_size": 16, "warmup_steps": 0.1}
        recipe = {
            "name": "mntp",
            "out": f"{folder}/run",
            "model": {"base": options.base, **shape, "bidirectional": True},
            "data": {"texts": str(train_texts)},
            "stage": [{**stage, "learning_rate": options.learning_rate, "log_every": 50}],
        }
        models["bidirectional, MNTP"] = antiphon.load(antiphon.train(recipe, on_step=print))
    found = {name: cosines(model) for name, model in models.items()}
    for name, model in models.items():
        loss = f", held-out MNTP loss {held_out_loss(model, held_out):.3f}" if name != "causal" else ""
        print(f"{name}: Spearman {spearmanr(found[name], gold).statistic:.4f}{loss}")
    ids = tuple(str(number) for number in range(len(rows)))
    samples = [Sample("spearman", ids, found[name], gold) for name in ("bidirectional", "bidirectional, MNTP")]
    print("MNTP minus untrained, both bidirectional:", paired(*samples))


if __name__ == "__main__":
    main()
