"""Training-free embeddings compared: forms of the text x layers x calibrations, on local tasks, with paired intervals.

    python benchmarks/zeroshot.py embed MODEL NAME PASS...
    python benchmarks/zeroshot.py score MODEL NAME [METHOD...]
    python benchmarks/zeroshot.py table NAME... [--out FOLDER]

`embed` runs every text of the tasks, and those that calibrations are fitted on, once through a language model in one
form and keeps the pooled states of several layers, so that `score` needs no model: a calibration is an affine map of
what is kept. Both go on where they were stopped. Texts that maps are fitted on are none of the tasks'. `table` prints
what is scored so far of the models, and writes the plot of score against compute.

The tasks are local files in the layouts of --data (zero_shot/sets.py names and cuts them). Vectors, accounts of what
they cost and scores are kept under .cache/zeroshot.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from zero_shot.passes import PASSES, Reader
from zero_shot.rows import METHODS, Vectorizer, rows_of
from zero_shot.sets import TASKS, fitting_texts, selected
from zero_shot.tables import print_table, write_plot

import antiphon
from antiphon.evaluation.embedder import Embedder
from antiphon.evaluation.evaluation_run import Settings, run
from antiphon.evaluation.selection import quiet
from antiphon.evaluation.vector_store import VectorStore

CACHE = Path(".cache/zeroshot")
WHOLE = ("classical-write", "echo-rewrite", "PromptEOL", "PromptEOL after echo")


def embed(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    quiet()
    for name in arguments.passes:
        place = CACHE / arguments.name / name
        reader = Reader(arguments.model, name, place.with_suffix(".json"))
        embedder = Embedder(reader, store=VectorStore(place.with_suffix(".sqlite")))
        for source, texts in fitting_texts(arguments.data).items():
            if source in arguments.fit:
                embedder.embed(texts, "", "query")
                _tell(f"{arguments.name} {name} {source}")
        width = reader.spent.width
        for task in selected(arguments.data, arguments.tasks, CACHE):
            scores = run(
                reader.model,
                [task],
                Settings(),
                identity="embedding",
                encode=lambda texts, prompt, side, by=embedder, width=width: by.embed(texts, "", side)[:, :width],
            )
            _tell(f"{arguments.name} {name} {task.name} {scores[task.name].main:.4f} {embedder.seconds:.0f} s")


def score(arguments: argparse.Namespace) -> None:
    quiet()
    tasks = selected(arguments.data, arguments.tasks, CACHE)
    fitting = {name: texts for name, texts in fitting_texts(arguments.data).items() if name in arguments.fit}
    vectorizer = Vectorizer(CACHE / arguments.name, arguments.model, fitting)
    stand_in = antiphon.build("nano", "classical-write", max_tokens=64)  # only asked how vectors are compared
    for method in arguments.methods or METHODS:
        if not vectorizer.has(method):
            continue
        for row in vectorizer.rows(method, list(fitting), whole=method in arguments.whole):
            place = CACHE / "scores" / arguments.name / row.label.replace(" ", "_")
            if place.exists():
                continue
            encode = vectorizer.encoder(row)
            scores = run(stand_in, tasks, Settings(), label=row.label, identity=row.label, encode=encode)
            scores.save(place)
            cost = dataclasses.asdict(row) | dataclasses.asdict(vectorizer.cost(row))
            (place / "row.json").write_text(json.dumps(cost), encoding="utf-8")
            _tell(f"{row.label} {scores.average:.4f}")


def table(arguments: argparse.Namespace) -> None:
    found = {name: sorted((CACHE / "scores" / name).iterdir()) for name in arguments.names}
    for name, places in found.items():
        print_table(name, places)
    if arguments.out:
        write_plot(found, arguments.out)


def _tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("embed")
    first.add_argument("model")
    first.add_argument("name")
    first.add_argument("passes", nargs="+", choices=PASSES)
    first.set_defaults(run=embed)
    second = commands.add_parser("score")
    second.add_argument("model")
    second.add_argument("name")
    second.add_argument("methods", nargs="*", choices=[*METHODS, []])
    second.add_argument("--whole", nargs="*", default=WHOLE, help="methods of which all layers and calibrations count")
    second.set_defaults(run=score)
    third = commands.add_parser("table")
    third.add_argument("names", nargs="+")
    third.add_argument("--out", type=Path)
    third.set_defaults(run=table)
    for command in (first, second):
        command.add_argument("--tasks", nargs="*", default=TASKS)
        command.add_argument("--fit", nargs="*", default=["wikipedia"])
        command.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
