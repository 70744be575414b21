"""Does Stage I pay on the embedded model? Baseline, anchor and anchor-echo over several seeds, with their curves.

    python benchmarks/anchor.py --out runs/anchor --seeds 3

Every run is a recipe of recipes/nano with another seed; the standard library's docstrings, which no run trains on, are
searched every few steps of the contrastive stage. A run that is there already is read, not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

import antiphon
from antiphon.data.docstrings import of_standard_library, pairs
from antiphon.demo import evenly
from antiphon.model.library_messages import quiet
from antiphon.training.losses import information
from antiphon.training.recipe import read

RECIPES = Path(__file__).parents[1] / "recipes" / "nano"
ARMS = ("baseline", "anchor", "anchor-echo")
HELD_OUT = 300


def beir(folder: Path) -> list[tuple[str, str]]:
    """Write the held-out pairs in BEIR layout; return them."""
    chosen = evenly(list(pairs(of_standard_library())), HELD_OUT)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = {
        "corpus.jsonl": [{"_id": f"d{n}", "title": "", "text": pair.body} for n, pair in enumerate(chosen)],
        "queries.jsonl": [{"_id": f"q{n}", "text": pair.summary} for n, pair in enumerate(chosen)],
    }
    for name, content in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    lines = [f"q{n}\td{n}\t1\n" for n in range(len(chosen))]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return [(pair.summary, pair.body) for pair in chosen]


def run(arm: str, seed: int, out: Path, tasks: Path, every: int, settings: dict[str, object]) -> Path:
    folder = out / f"{arm}-{seed}"
    if (folder / "run.json").exists():
        stages = json.loads((folder / "run.json").read_text())["stages"]
        if len(stages) == len(read(RECIPES / f"{arm}.toml").stage):
            return folder
    overrides = {
        **settings,
        "seed": seed,
        "out": str(folder),
        "stage.contrastive.evaluation": {
            "tasks": [str(tasks)],
            "instructions": {tasks.name: ""},
            "every": every,
        },
    }
    return antiphon.train(RECIPES / f"{arm}.toml", overrides=overrides, resume=folder.exists(), on_step=print)


def curve(folder: Path) -> dict[int, float]:
    stage = json.loads((folder / "run.json").read_text())["stages"][-1]
    return {entry["step"]: entry["eval_average"] for entry in stage["history"] if "eval_average" in entry}


def told(model: object, held_out: list[tuple[str, str]]) -> str:
    told = information(model, held_out[:200])
    to_document, to_query = told.query_to_document, told.document_to_query
    return (
        f"EBQ2D {to_document.given:.3f} (without the vector {to_document.without:.3f}), "
        f"EBD2Q {to_query.given:.3f} (without {to_query.without:.3f}) nats a token"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/anchor"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="of every recipe")
    options = parser.parse_args()
    from antiphon.data.settings import assignments

    quiet()
    torch.set_num_threads(1)
    held_out = beir(options.out / "docstrings")
    settings = assignments(options.set)
    curves: dict[str, list[dict[int, float]]] = {arm: [] for arm in options.arms}
    for seed in range(1, options.seeds + 1):
        for arm in options.arms:
            folder = run(arm, seed, options.out, options.out / "docstrings", options.every, settings)
            curves[arm].append(curve(folder))
            print(arm, seed, {step: round(score, 4) for step, score in curves[arm][-1].items()}, flush=True)
            stage_one = folder / "stages" / "1-reconstruction" / "model"
            if stage_one.exists():
                print(" ", told(antiphon.load(stage_one, device="cpu"), held_out), flush=True)
    print(f"\nnDCG@10 over {HELD_OUT} docstrings, mean and standard deviation over {options.seeds} seeds")
    steps = sorted({step for runs in curves.values() for one in runs for step in one})
    print("step".rjust(6), *(arm.rjust(18) for arm in options.arms))
    for step in steps:
        cells = []
        for arm in options.arms:
            scores = [one[step] for one in curves[arm] if step in one]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            cells.append(f"{statistics.mean(scores):.4f} +- {spread:.4f}" if scores else "-")
        print(str(step).rjust(6), *(cell.rjust(18) for cell in cells))


if __name__ == "__main__":
    main()
