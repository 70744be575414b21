"""Search over a Lance table: recall against exact search, size, time to build an index, and time of a query.

    python benchmarks/lance.py --work DIR --rows 100000 --precision float32 int8 binary
    python benchmarks/lance.py --work DIR --rows 1000000 --precision float32

Vectors are made, no model runs: each is the sum of its words' directions (four to eight of 2,000 words, the frequent
ones more often) and a direction of its own of half that length, at unit length. Queries are made in the same way and
are none of the rows. Exact is a product with the float32 vectors, whatever is stored.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from antiphon.corpus.codec import Ranges
from antiphon.corpus.index import Index
from antiphon.corpus.kept_columns import KeptColumns
from antiphon.corpus.lance_indexing import build_index
from antiphon.corpus.lance_search import LanceSearch
from antiphon.corpus.shards import LANCE, FolderSettings
from antiphon.data.text_columns import Record
from antiphon.model.unit_vectors import Vectors

SHARD, QUERIES, NEAREST, WORDS = 8192, 300, 10, 2000


def made(rows: int, width: int, seed: int) -> Iterator[Vectors]:
    """Yield unit vectors, a shard at a time."""
    words = np.random.default_rng(0).normal(size=(WORDS, width)).astype(np.float32) / width**0.5
    often = 1 / np.arange(1, WORDS + 1)
    generator = np.random.default_rng(seed)
    for first in range(0, rows, SHARD):
        number = min(SHARD, rows - first)
        chosen = generator.choice(WORDS, size=(number, 8), p=often / often.sum())
        counted = np.arange(8) < generator.integers(4, 9, size=(number, 1))
        sums = (words[chosen] * counted[..., None]).sum(axis=1)
        own = generator.normal(size=(number, width)).astype(np.float32)
        own *= 0.5 * np.linalg.norm(sums, axis=1, keepdims=True) / np.linalg.norm(own, axis=1, keepdims=True)
        yield (sums + own) / np.linalg.norm(sums + own, axis=1, keepdims=True)


def written(folder: Path, rows: int, width: int, precision: str) -> Index:
    """Write the table as embed does."""
    folder.mkdir(parents=True)
    settings = FolderSettings("made", "document", SHARD, width, precision=precision, store=LANCE)
    index, first = Index(folder, settings).written(), 0
    for number, vectors in enumerate(made(rows, width, seed=1)):
        if precision == "int8" and index.ranges is None:
            index = Index(folder, settings, ranges=Ranges.of(vectors[:4096]))
        records = [Record(f"t{row}", f"text {row}") for row in range(first, first + len(vectors))]
        index, first = index.with_shard(number, records, vectors, KeptColumns()), first + len(vectors)
    return index.finished()


def exact(rows: int, width: int, queries: Vectors) -> list[set[str]]:
    """Return the ids of the nearest rows of each query."""
    scores, names = np.full((len(queries), 0), -1, dtype=np.float32), np.zeros((len(queries), 0), dtype=np.int64)
    first = 0
    for vectors in made(rows, width, seed=1):
        scores = np.concatenate([scores, queries @ vectors.T], axis=1)
        numbers = np.broadcast_to(np.arange(first, first + len(vectors)), (len(queries), len(vectors)))
        names = np.concatenate([names, numbers], axis=1)
        best = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
        scores, names = np.take_along_axis(scores, best, axis=1), np.take_along_axis(names, best, axis=1)
        first += len(vectors)
    return [{f"t{number}" for number in row} for row in names]


def asked(index: Index, queries: Vectors, wanted: list[set[str]]) -> str:
    """Search for every query, and say how much of the nearest was found and how long it took."""
    search, seconds, found = LanceSearch(index, ()), [], []
    search.hits("vector", "", queries[0], NEAREST)
    for query, ids in zip(queries, wanted, strict=True):
        began = time.perf_counter()
        hits = search.hits("vector", "", query, NEAREST)
        seconds.append(time.perf_counter() - began)
        found.append(len(ids & {hit.id for hit in hits}) / len(ids))
    middle, late = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.99))
    return f"recall@{NEAREST} {np.mean(found):.4f}, a query p50 {middle:.1f} ms, p99 {late:.1f} ms"


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--precision", nargs="+", default=["float32", "int8", "binary"])
    options = parser.parse_args()
    queries = next(made(QUERIES, options.width, seed=2))
    wanted = exact(options.rows, options.width, queries)
    for precision in options.precision:
        began = time.monotonic()
        index = written(options.work / f"{precision}-{options.rows}.lance", options.rows, options.width, precision)
        print(f"{precision}, {options.rows:,} rows of {options.width}: written in {time.monotonic() - began:.0f} s, "
              f"{size(index.folder):,.0f} MB", flush=True)  # fmt: skip
        some = slice(0, 20)  # without an index all rows are gone through
        print(f"  no index: {asked(index, queries[some], wanted[some])}", flush=True)
        if precision != "int8":
            built = build_index(index.folder)
            print(f"  {built.kind}, {built.partitions} partitions in {built.seconds:.1f} s, {built.probes} of them "
                  f"and {built.refine} times the rows looked at, recall of stored vectors {built.recall:.4f}, "
                  f"{size(index.folder):,.0f} MB", flush=True)  # fmt: skip
            print(f"  {built.kind}: {asked(index, queries, wanted)}", flush=True)
    print(f"peak of resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
