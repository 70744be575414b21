"""The engine ray against the local one, two cores each: texts a second and CPU seconds, the same rows.

    python benchmarks/ray_engine.py --work DIR --texts 16000

Model and texts are those of million.py. Clocks begin with the first shard, when everybody has started, and end with the
last. On a machine that does other work the CPU seconds say more than the clock.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from million import make_model, make_texts

import antiphon
from antiphon.corpus.ray_cluster import RaySettings

CORES = 2
_TICKS = os.sysconf("SC_CLK_TCK")


def relatives(parents: set[int]) -> Iterator[tuple[int, float]]:
    """Yield the processes below some, themselves included, and their CPU seconds."""
    table = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        table[int(folder.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS)
    found = set(parents)
    while more := {number for number, (parent, _) in table.items() if parent in found} - found:
        found |= more
    yield from ((number, table[number][1]) for number in found if number in table)


def cpu_seconds() -> float:
    return sum(seconds for _, seconds in relatives({os.getpid()}))


def measured(model: Path, texts: Path, out: Path, engine: RaySettings | str) -> tuple[float, float]:
    """Embed, and return texts a second and CPU seconds for a thousand texts."""
    first: list[tuple[int, float, float]] = []
    last = (0, 0.0, 0.0)

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        last = (done, time.monotonic(), cpu_seconds())
        if not first:
            first.append(last)

    opened = antiphon.build(model, "classical-write", pooling="mean", max_tokens=64, device="cpu")
    antiphon.embed(opened, texts, out, batch_size=128, shard_size=1024, engine=engine, on_progress=tell)
    done = last[0] - first[0][0]
    return done / (last[1] - first[0][1]), 1000 * (last[2] - first[0][2]) / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=16_000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model, texts = options.work / "model", options.work / "texts.jsonl"
    make_model(model)
    make_texts(texts, options.texts)
    torch.set_num_threads(CORES)
    rates = {}
    for name, engine in {"local": "local", "ray": RaySettings(workers=CORES)}.items():
        rates[name], seconds = measured(model, texts, options.work / name, engine)
        print(f"{name}: {rates[name]:,.0f} texts/s, {seconds:.2f} CPU seconds for a thousand", flush=True)
    same = (options.work / "local" / "_embed.json").read_text() == (options.work / "ray" / "_embed.json").read_text()
    print(f"ray is {rates['ray'] / rates['local']:.2f} times as fast; the same rows and digests: {same}")


if __name__ == "__main__":
    main()
