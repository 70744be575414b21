"""What the instruction that a run saved is worth in a search: said as in training, left out, and another one said.

    python benchmarks/instruction.py --out runs/instruction --seeds 3

Every run is recipes/nano/baseline.toml with a query instruction and another seed; the standard library's docstrings,
which no run trains on, are searched by their first lines. A run that is there already is read, not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import antiphon
from antiphon import nano
from antiphon.data.docstrings import evenly, of_standard_library, pairs
from antiphon.evaluation.statistics import bootstrap, ndcg
from antiphon.model.library_messages import quiet
from antiphon.model.prompts import prompt_of
from antiphon.model.unit_vectors import unit

INSTRUCTION = "Given the first line of a docstring, find the rest of it"
OTHER = "Given a question, find the answer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/instruction"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1000)
    options = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    chosen = evenly(list(pairs(of_standard_library())), options.pairs)
    queries, documents = [pair.summary for pair in chosen], [pair.body for pair in chosen]
    found: dict[str, list[np.ndarray]] = {}
    for seed in range(1, options.seeds + 1):
        out = options.out / f"seed-{seed}"
        changes = {"out": str(out), "seed": seed, "model.prompts": {"query": INSTRUCTION}}
        model = antiphon.load(antiphon.train(nano.recipe_file("baseline"), overrides=changes, resume=out.exists()))
        said = prompt_of(model, "query")
        assert INSTRUCTION in said
        encoder = antiphon.Encoder(model)
        documents_QD = unit(encoder.encode_document(documents), queries)
        asked = {"as in training": said, "none": "", "another": said.replace(INSTRUCTION, OTHER)}
        for name, prompt in asked.items():
            queries_QD = unit(encoder.encode_query(queries, prompt=prompt), queries)
            found.setdefault(name, []).append(ndcg(queries_QD @ documents_QD.T))
        print(f"seed {seed}: " + ", ".join(f"{name} {one[-1].mean():.4f}" for name, one in found.items()), flush=True)
    trained = np.mean(found["as in training"], axis=0)
    for name, scores in found.items():
        means = [float(one.mean()) for one in scores]
        spread = np.std(means, ddof=1) if len(means) > 1 else float("nan")
        print(f"{name}: {np.mean(means):.4f} +- {spread:.4f}, as in training minus it, query by query:", end=" ")
        print(bootstrap(trained - np.mean(scores, axis=0)))


if __name__ == "__main__":
    main()
