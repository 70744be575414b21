"""Training-free embeddings compared: forms of the text x layers x calibrations, on local tasks, with paired intervals.

    python benchmarks/zeroshot.py embed MODEL NAME PASS...
    python benchmarks/zeroshot.py score MODEL NAME [METHOD...]
    python benchmarks/zeroshot.py check MODEL NAME [METHOD...]
    python benchmarks/zeroshot.py layers MODEL NAME [METHOD...]
    python benchmarks/zeroshot.py table NAME... [--out FOLDER]

`embed` runs every text of the tasks, and those that calibrations are fitted on, once through a language model in one
form and keeps the pooled states of several layers, so that `score` needs no model: a calibration is an affine map of
what is kept. Both go on where they were stopped. Texts that maps are fitted on are none of the tasks'. `layers` says
what criteria without labels would choose, and what the tasks say to that. `table` prints what is scored so far of the
models, and writes the plot of score against compute.

The tasks are local files in the layouts of --data (zero_shot/sets.py names and cuts them). Vectors, accounts of what
they cost and scores are kept under .cache/zeroshot.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mteb.abstasks import AbsTask
from zero_shot import scoring
from zero_shot.layer_choice import print_choices
from zero_shot.passes import PASSES, Reader
from zero_shot.rows import METHODS, Vectorizer
from zero_shot.sets import TASKS, fitting_texts, selected
from zero_shot.tables import print_table, write_plot

import antiphon
from antiphon.evaluation.embedder import CountingEmbedder
from antiphon.evaluation.evaluation_run import EvaluationSettings, run
from antiphon.evaluation.selection import quiet
from antiphon.evaluation.vector_store import Vectors, VectorStore
from antiphon.text.template import Side

CACHE = Path(".cache/zeroshot")
WHOLE = ("classical-write", "echo-rewrite", "PromptEOL", "PromptEOL after echo")


def embed(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    quiet()
    fitting = fitting_texts(arguments.data, CACHE)
    steps = [*(("fit", name) for name in arguments.fit if name != "halves")]
    steps += [("task", task) for task in arguments.tasks] + [("fit", "halves")] * ("halves" in arguments.fit)
    folder = CACHE / arguments.name
    readers = {name: Reader(arguments.model, name, folder / f"{name}.json") for name in arguments.passes}
    embedders = {
        name: CountingEmbedder(one, store=VectorStore(folder / f"{name}.sqlite")) for name, one in readers.items()
    }
    # step by step, so that what was done when it is stopped was done by every pass
    for kind, what in steps:
        for name, embedder in embedders.items():
            if kind == "fit":
                embedder.embed(fitting[what], "", "query")
                _tell(f"{arguments.name} {name} {what}")
            else:
                score = _last_layer(readers[name], embedder, arguments.data, what)
                _tell(f"{arguments.name} {name} {what} {score:.4f} {embedder.seconds:.0f} s")


def _last_layer(reader: Reader, embedder: CountingEmbedder, data: Path, task: str) -> float:
    """Embed the texts of a task, and return its score at the last layer, plain."""

    def encode(texts: Sequence[str], prompt: str, side: Side) -> Vectors:
        return embedder.embed(texts, "", side)[:, : reader.spent.width]

    (scores,) = run(
        reader.model, selected(data, [task], CACHE), EvaluationSettings(), identity="embedding", encode=encode
    ).tasks.values()
    return scores.main


def score(arguments: argparse.Namespace) -> None:
    quiet()
    tasks = selected(arguments.data, arguments.tasks, CACHE)
    vectorizer = Vectorizer(CACHE / arguments.name, arguments.model, fitting_texts(arguments.data, CACHE))
    fitted = [name for name in arguments.fit if name != "halves"]
    loaded: dict[str, AbsTask] = {}
    for method in arguments.methods or METHODS:
        if not vectorizer.has(method):
            continue
        for row in vectorizer.rows(method, fitted, whole=method in arguments.whole):
            place = CACHE / "scores" / arguments.name / row.label.replace(" ", "_")
            if not place.exists():
                scores = scoring.score(tasks, vectorizer.encoder(row), row.label, loaded)
                scores.save(place)
                facts = dataclasses.asdict(row) | dataclasses.asdict(vectorizer.cost(row))
                (place / "row.json").write_text(json.dumps(facts), encoding="utf-8")
                _tell(f"{row.label} {scores.average:.4f}")


def check(arguments: argparse.Namespace) -> None:
    """Print both scores of each task, zero_shot/scoring.py's and mteb's, of plain and standardised vectors."""
    quiet()
    tasks = selected(arguments.data, arguments.tasks, CACHE)
    vectorizer = Vectorizer(CACHE / arguments.name, arguments.model, fitting_texts(arguments.data, CACHE))
    stand_in = antiphon.build("nano", "classical-write", max_tokens=64)  # only asked how vectors are compared
    for method in arguments.methods or ["echo-rewrite"]:
        for row in vectorizer.rows(method, ["wikipedia"], whole=False):
            encode = vectorizer.encoder(row)
            ours = scoring.score(tasks, encode, row.label, {})
            theirs = run(stand_in, tasks, EvaluationSettings(), label=row.label, identity=row.label, encode=encode)
            for name in ours:
                _tell(f"{row.label}: {name} {ours[name].main:.4f}, by mteb {theirs[name].main:.4f}")


def layers(arguments: argparse.Namespace) -> None:
    fitting = fitting_texts(arguments.data, CACHE)
    vectorizer = Vectorizer(CACHE / arguments.name, arguments.model, fitting)
    methods = [method for method in arguments.methods or WHOLE if vectorizer.has(method)]
    places = CACHE / "scores" / arguments.name
    print_choices(vectorizer, methods, places, fitting["wikipedia"], fitting["halves"])


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
    kept = {does.__name__: commands.add_parser(does.__name__) for does in (score, check, layers)}
    for command, does in zip(kept.values(), (score, check, layers), strict=True):
        command.add_argument("model")
        command.add_argument("name")
        command.add_argument("methods", nargs="*", choices=[*METHODS, []])
        command.set_defaults(run=does)
    kept["score"].add_argument(
        "--whole", nargs="*", default=WHOLE, help="methods of which all layers and calibrations count"
    )
    third = commands.add_parser("table")
    third.add_argument("names", nargs="+")
    third.add_argument("--out", type=Path)
    third.set_defaults(run=table)
    for command in (first, *kept.values()):
        command.add_argument("--tasks", nargs="*", default=TASKS)
        command.add_argument("--fit", nargs="*", default=["wikipedia", "halves"])
        command.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
