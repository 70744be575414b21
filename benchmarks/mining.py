"""Mining against a corpus: equal to brute force, and its memory when the corpus grows tenfold.

    python benchmarks/mining.py --model MODEL --texts texts.jsonl --sizes 5000 50000

MODEL and the texts may be those of million.py. Each size runs in a process of its own; of up to 5,000 texts the
negatives are compared with a full matrix of cosines.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.corpus.mining import mine
from antiphon.corpus.mining_settings import MiningSettings
from antiphon.data.pairs import Pair, to_dataset
from antiphon.model.parity import encode
from antiphon.model.unit_vectors import unit

QUERIES = 500
SETTINGS = MiningSettings(relative_margin=None, range_min=2, range_max=50)


def measured(model_name: str, texts: Path, size: int, *, brute_force: bool) -> str:
    """Mine negatives for pairs of texts out of the first `size`, and say what it took."""
    corpus = texts.with_name(f"corpus-{size}.jsonl")
    with texts.open(encoding="utf-8") as file:
        lines = list(islice(file, size))
    corpus.write_text("".join(lines), encoding="utf-8")
    words = [json.loads(line)["text"] for line in lines[: 2 * QUERIES]]
    pairs = to_dataset([Pair(words[n], words[n + QUERIES]) for n in range(QUERIES)])
    del lines
    model = antiphon.build(model_name, "classical-write", pooling="mean", max_tokens=64)
    began = time.monotonic()
    mined = mine(model, pairs, settings=SETTINGS, corpus=corpus)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = f"{size:,} texts: {seconds:.0f} s, peak {peak:,.0f} MiB"
    if brute_force:
        right = sum(one == other for one, other in zip(found(mined), wanted(model, pairs, corpus), strict=True))
        said += f", {right} of {QUERIES} queries as by brute force"
    return said


def found(mined: Dataset) -> list[list[str]]:
    names = [name for name in mined.column_names if name.startswith("negative_")]
    return [[row[name] for name in names if row[name]] for row in mined]


def wanted(model: SentenceTransformer, pairs: Dataset, corpus: Path) -> list[list[str]]:
    """What the settings say, over the full matrix of cosines."""
    texts = list(dict.fromkeys(json.loads(line)["text"] for line in corpus.open(encoding="utf-8")))
    documents = unit(encode(model, texts, side="document"))
    queries = unit(encode(model, pairs["anchor"][:], side="query"))
    cosines = np.round((queries @ documents.T).astype(np.float64), 6)
    numbers = {text: n for n, text in enumerate(texts)}
    out = []
    for query, row in enumerate(pairs):
        own = {numbers[row["anchor"]], numbers[row["positive"]]}
        ranked = [n for n in np.argsort(-cosines[query], kind="stable") if n not in own]
        window = ranked[SETTINGS.range_min : SETTINGS.range_max]
        highest = SETTINGS.highest(cosines[query, numbers[row["positive"]]]) + 1e-6 / 2
        out.append([texts[n] for n in window if cosines[query, n] <= highest][: SETTINGS.negatives])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 50_000])
    options = parser.parse_args()
    if len(options.sizes) == 1:
        print(measured(options.model, options.texts, options.sizes[0], brute_force=options.sizes[0] <= 5000))
        return
    for size in options.sizes:
        command = [sys.executable, __file__, "--model", options.model, "--texts", str(options.texts)]
        done = subprocess.run([*command, "--sizes", str(size)], check=True, text=True, stdout=subprocess.PIPE)
        print(done.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
