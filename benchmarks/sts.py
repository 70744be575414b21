"""Zero-shot Spearman on a file of sentence pairs (tab-separated: sentence1, sentence2, score), template by template.

    python benchmarks/sts.py MODEL PAIRS.tsv [--most 1500]

Intervals are 95 %, from 1,000 bootstrap resamples of the pairs; the last column is the paired difference from the
classical row of the same pooling.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import antiphon

CONFIGURATIONS = (
    ("classical-write", "mean"),
    ("classical-write", "last"),
    ("echo-rewrite", "mean"),
    ("echo-rewrite-matched", "mean"),
    ("echo-rewrite", "last"),
    ("eol", "last"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--most", type=int, default=None)
    parser.add_argument("--max-tokens", type=int, default=128)
    arguments = parser.parse_args()
    with arguments.pairs.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[: arguments.most]
    gold = np.array([float(row["score"]) for row in rows])
    samples = np.random.default_rng(0).integers(len(rows), size=(1000, len(rows)))
    print(f"{arguments.pairs.name}: {len(rows)} pairs\n\n| template | pooling | Spearman | 95 % | minus classical |")
    print("|---|---|---|---|---|")
    classical: dict[str, np.ndarray] = {}
    for template, pooling in CONFIGURATIONS:
        model = antiphon.build(
            arguments.model, template, pooling=pooling, max_tokens=arguments.max_tokens, dtype="float32"
        )
        sides = [
            model.encode([row[name] for row in rows], normalize_embeddings=True, show_progress_bar=False)
            for name in ("sentence1", "sentence2")
        ]
        predicted = (sides[0] * sides[1]).sum(axis=1)
        drawn = np.array([spearmanr(predicted[sample], gold[sample])[0] for sample in samples])
        base = classical.setdefault(pooling, drawn)
        low, high = np.quantile(drawn, [0.025, 0.975])
        gain = "" if base is drawn else "{:+.3f} to {:+.3f}".format(*np.quantile(drawn - base, [0.025, 0.975]))
        score = spearmanr(predicted, gold)[0]
        print(f"| {template} | {pooling} | {score:.3f} | {low:.3f} to {high:.3f} | {gain} |", flush=True)


if __name__ == "__main__":
    main()
