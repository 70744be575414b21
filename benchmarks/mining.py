"""Mining against a corpus: equal to brute force, and its memory when the corpus grows tenfold.

    python benchmarks/mining.py --model MODEL --texts texts.jsonl --sizes 5000 50000
    python benchmarks/mining.py --model MODEL --pairs nq.jsonl squad.jsonl hotpot_qa.jsonl

MODEL and the texts may be those of million.py. Each size runs in a process of its own; of up to 5,000 texts the
negatives are compared with a full matrix of cosines. Pairs are mined by the default margin and without: some of every
file ask, and the corpus is the positives of all, 5,000 of them at most.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.corpus.mining import mine
from antiphon.corpus.mining_settings import MiningSettings
from antiphon.data.pairs import Pair, load, to_dataset
from antiphon.data.pairs.overlap import reading
from antiphon.model.parity import encode
from antiphon.model.unit_vectors import unit

QUERIES, COMPARED = 500, 5000
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
        right = equal(mined, by_brute_force(model, pairs, corpus)(SETTINGS))
        said += f", {right} of {QUERIES} queries as by brute force"
    return said


def measured_pairs(model_name: str, paths: list[Path]) -> str:
    """Mine negatives for pairs of files, with the default margin and without, and compare with a full matrix."""
    asking: dict[str, Pair] = {}
    texts: dict[str, str] = {}
    for path in paths:
        rows = load(path, negatives=0)
        own = {reading(row["anchor"]): Pair(row["anchor"], row["positive"]) for row in rows}
        asking |= dict(islice(own.items(), QUERIES // len(paths)))
        texts |= {reading(pair.positive): pair.positive for pair in own.values()}
    first = {reading(pair.positive): pair.positive for pair in asking.values()}
    chosen = list(dict(islice((first | texts).items(), COMPARED)).values())
    pairs, said = to_dataset(list(asking.values())), [f"{len(chosen):,} texts of {len(paths)} files"]
    model = antiphon.build(model_name, "classical-write", pooling="mean", max_tokens=64)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen), encoding="utf-8")
        wanted = by_brute_force(model, pairs, corpus)
        for what, settings in (("by default", MiningSettings()), ("without a margin", SETTINGS)):
            mined = mine(model, pairs, settings=settings, corpus=corpus)
            number, right = sum(map(len, found(mined))), equal(mined, wanted(settings))
            said.append(f"{what} {number:,} negatives, {right} of {len(pairs)} queries as by brute force")
    return "; ".join(said)


def equal(mined: Dataset, wanted: list[list[str]]) -> int:
    """Return the number of queries that have the negatives of a full comparison."""
    return sum(one == other for one, other in zip(found(mined), wanted, strict=True))


def found(mined: Dataset) -> list[list[str]]:
    names = [name for name in mined.column_names if name.startswith("negative_")]
    return [[row[name] for name in names if row[name]] for row in mined]


def by_brute_force(
    model: SentenceTransformer, pairs: Dataset, corpus: Path
) -> Callable[[MiningSettings], list[list[str]]]:
    """Return what gives the negatives that settings want, over the full matrix of cosines."""
    texts = list(dict.fromkeys(json.loads(line)["text"] for line in corpus.open(encoding="utf-8")))
    documents = unit(encode(model, texts, side="document"))
    queries = unit(encode(model, pairs["anchor"][:], side="query"))
    cosines = np.round((queries @ documents.T).astype(np.float64), 6)
    numbers = {reading(text): n for n, text in enumerate(texts)}

    def wanted(settings: MiningSettings) -> list[list[str]]:
        out = []
        for query, row in enumerate(pairs):
            positive = numbers[reading(row["positive"])]
            own = {numbers.get(reading(row["anchor"])), positive}
            ranked = [n for n in np.argsort(-cosines[query], kind="stable") if n not in own]
            window = ranked[settings.range_min : settings.range_max]
            highest = settings.highest(cosines[query, positive]) + 1e-6 / 2
            out.append([texts[n] for n in window if cosines[query, n] <= highest][: settings.negatives])
        return out

    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--texts", type=Path)
    inputs.add_argument("--pairs", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 50_000])
    options = parser.parse_args()
    if options.pairs:
        print(measured_pairs(options.model, options.pairs))
        return
    if len(options.sizes) == 1:
        print(measured(options.model, options.texts, options.sizes[0], brute_force=options.sizes[0] <= COMPARED))
        return
    for size in options.sizes:
        command = [sys.executable, __file__, "--model", options.model, "--texts", str(options.texts)]
        done = subprocess.run([*command, "--sizes", str(size)], check=True, text=True, stdout=subprocess.PIPE)
        print(done.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
