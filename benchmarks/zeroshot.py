"""Training-free embeddings compared: forms of the text x layers x calibration, on local tasks, with paired intervals.

    python benchmarks/zeroshot.py embed MODEL NAME FORM [--data FOLDER] [--tasks PATHS] [--limit 80] [--fit SETS]
    python benchmarks/zeroshot.py score MODEL NAME FORM... [--data FOLDER] [--tasks PATHS] [--limit 80] [--fit SETS]

`embed` runs every text of the tasks, and those that calibrations are fitted on, once through a language model in one
form (FORMS) and keeps the pooled states of several layers, so that `score` needs no model: a calibration is an affine
map of what is kept. Both go on where they were stopped. Texts that maps are fitted on are none of the tasks'.

A reading is a layer and whether the model's final norm stood behind it: "24n" is what `build(..., layers=24)` gives,
"24" the stream before the norm, which no stock folder gives. Scores are kept under .cache/zeroshot, one folder a row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.data.docstrings import harvest, standard_library
from antiphon.evaluation.embedder import Embedder, Encode, VectorStore
from antiphon.evaluation.evaluation_run import Settings, run
from antiphon.evaluation.selection import select
from antiphon.model.affine_maps import AffineMap, Moments, fit
from antiphon.model.calibration import head_of

CACHE = Path(".cache/zeroshot")
# template, and what is pooled: the marked span's mean, or the last token that is no EOS
FORMS = {
    "classical": ("classical-write", "mean"),
    "echo": ("echo-rewrite", "mean"),
    "echo2": ("Rewrite the following paragraph: {text}. The rewritten paragraph: {text}. Once more: [{text}]", "mean"),
    "eol": ("eol", "last"),
    "echo-eol": ('This text: "{text}" Again: "[{text}]" means in one word: "', "last"),
}
METHODS = (
    "none",
    "standardize",
    "center",
    "all-but-the-top:3",
    "all-but-the-top:10",
    "whiten",
    "whiten:0.5",
    "embed_filter:0.5",
    "center+embed_filter:0.5",
    "embed_filter:0.5+standardize",
)
TASKS = (
    "sts/stsb_dev.tsv",
    "sts/sts12.tsv",
    "classification/banking77",
    "clustering/stackoverflow.jsonl",
    "classification/trec_questions",
    "beir/xquad_en",
    "pairs/quora_dev.tsv",
    "sts/sts13.tsv",
)
FITTED = 150
MAX_TOKENS = 64


def layers_kept(layers: int) -> list[int]:
    """Return the layers whose states are kept: of the upper half, every other one and the last three."""
    return sorted({*range(layers // 2, layers, 2), layers - 2, layers - 1, layers})


class Reader:
    """Runs a model and returns, for each text, the pooled states of all kept layers, raw and behind the norm."""

    def __init__(self, source: str, form: str) -> None:
        template, self.pooling = FORMS[form]
        self.model: SentenceTransformer = antiphon.build(
            source,
            template,
            pooling=self.pooling if self.pooling == "last" else "mean",
            max_tokens=MAX_TOKENS,
            dtype="float32",
            device="cpu",
        )
        self.decoder = self.model[0].model
        self.layers = layers_kept(len(self.decoder.layers))
        self.tokens = 0
        self._last: torch.Tensor | None = None
        self.decoder.norm.register_forward_pre_hook(self._keep)

    def _keep(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._last = inputs[0]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], prompt: str, side: str) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        out: dict[int, np.ndarray] = {}
        for batch in _batches(order, texts):
            for number, vector in zip(batch, self._vectors([texts[n] for n in batch], side), strict=True):
                out[number] = vector
        return np.stack([out[n] for n in range(len(texts))])

    def _vectors(self, texts: list[str], side: str) -> np.ndarray:
        features = self.model.preprocess(texts, prompt=None, task=side)
        ids, mask = features["input_ids"], features["attention_mask"]
        self.tokens += int(mask.sum())
        states = self.decoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        assert self._last is not None
        if self.pooling == "last":
            ends = mask.sum(1) - 1
            ends = ends - (ids[torch.arange(len(ids)), ends] == self.model.tokenizer.eos_token_id).long()
            weights = torch.nn.functional.one_hot(ends, ids.shape[1]).float()
        else:
            weights = features["pool_mask"].float()
        weights = weights / weights.sum(1, keepdim=True)
        pooled = []
        for layer in self.layers:
            raw = self._last if layer == self.layers[-1] else states[layer]
            normed = states[-1] if layer == self.layers[-1] else self.decoder.norm(raw)
            pooled += [torch.einsum("bt,btd->bd", weights, one) for one in (raw, normed)]
        return torch.cat(pooled, dim=1).numpy()


def _batches(order: Sequence[int], texts: Sequence[str], most: int = 8000) -> Iterator[list[int]]:
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) + 1) * len(texts[number]) > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def fitting_texts(data: Path) -> dict[str, list[str]]:
    """Return the texts that maps are fitted on: paragraphs of encyclopedia, and docstrings of this Python."""
    lines = (data / "text" / "wikitext2.txt").read_text(encoding="utf-8").splitlines()
    paragraphs = [line.strip() for line in lines if 150 <= len(line) <= 320]
    docstrings = [one.text for one in harvest(standard_library(), minimum=100) if len(one.text) <= 320]
    return {
        name: [texts[n * len(texts) // FITTED] for n in range(FITTED)]
        for name, texts in (("wikipedia", paragraphs), ("docstrings", docstrings))
    }


def selected(arguments: argparse.Namespace) -> list[Any]:
    paths = [arguments.data / task for task in arguments.tasks]
    return [one for path in paths for one in select([path], limit=arguments.limit, seed=42)]


def store_of(name: str, form: str) -> VectorStore:
    return VectorStore(CACHE / f"{name}-{form}.sqlite")


def embed(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    reader = Reader(arguments.model, arguments.form)
    embedder = Embedder(reader, store=store_of(arguments.name, arguments.form))
    for name, texts in fitting_texts(arguments.data).items():
        if name not in arguments.fit:
            continue
        embedder.embed(texts, "", "query")
        print(f"{time.strftime('%H:%M:%S')} {arguments.name} {arguments.form} {name}", flush=True)
    for task in selected(arguments):
        began = time.perf_counter()
        scores = run(
            reader.model,
            [task],
            Settings(),
            identity="embedding",
            encode=lambda texts, prompt, side: embedder.embed(texts, "", side)[
                :, -reader.model.get_embedding_dimension() :
            ],
        )
        print(
            f"{time.strftime('%H:%M:%S')} {arguments.name} {arguments.form} {task.name} "
            f"{scores[task.name].main:.4f} {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    facts = {
        "layers": reader.layers,
        "width": reader.model.get_embedding_dimension(),
        "tokens": reader.tokens,
        "texts": embedder.embedded,
        "seconds": embedder.seconds,
    }
    (CACHE / f"{arguments.name}-{arguments.form}.json").write_text(json.dumps(facts))


def rows_of(form: str, layers: Sequence[int], fitted: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return what is scored of a form: reading, method, and what the method was fitted on."""
    last, first = f"{layers[-1]}n", fitted[0]
    rows = [(last, method, first) for method in METHODS]
    rows += [(f"{layer}{norm}", method, first) for layer in layers for norm in ("n", "") for method in METHODS[:2]]
    rows += [(last, "standardize", other) for other in fitted[1:]]
    return list(dict.fromkeys(rows))


class Kept:
    """What `embed` kept of a form: vectors of any reading, without the model."""

    def __init__(self, source: str, name: str, form: str) -> None:
        self.facts = json.loads((CACHE / f"{name}-{form}.json").read_text())
        self.embedder = Embedder(_absent, store=store_of(name, form))
        self.head: np.ndarray | None = None
        self.source = source

    def vectors(self, texts: Sequence[str], reading: str, side: str = "query") -> np.ndarray:
        width, layers = self.facts["width"], self.facts["layers"]
        at = 2 * layers.index(int(reading.rstrip("n"))) + reading.endswith("n")
        return self.embedder.embed(texts, "", side)[:, at * width : (at + 1) * width]

    def encoder(self, reading: str, by: AffineMap) -> Encode:
        def encode(texts: Sequence[str], prompt: str, side: str) -> np.ndarray:
            raw = self.vectors(texts, reading, side).astype(np.float64)
            return (raw @ by.weight.T + by.bias).astype(np.float32)

        return encode

    def head_weight(self) -> np.ndarray:
        if self.head is None:
            self.head = head_of(antiphon.build(self.source, max_tokens=MAX_TOKENS, dtype="float32", device="cpu"))
        return self.head


def _absent(texts: Sequence[str], prompt: str, side: str) -> np.ndarray:
    raise SystemExit(f"{len(texts)} texts were not embedded; run embed to its end first.")


def score(arguments: argparse.Namespace) -> None:
    fitting = {name: texts for name, texts in fitting_texts(arguments.data).items() if name in arguments.fit}
    tasks = selected(arguments)
    stand_in = antiphon.build("nano", "classical-write", max_tokens=MAX_TOKENS)  # only asked how vectors are compared
    folders: dict[str, Path] = {}
    for form in arguments.forms:
        kept = Kept(arguments.model, arguments.name, form)
        for reading, method, fitted in rows_of(form, kept.facts["layers"], list(fitting)):
            label = f"{form} {reading} {method}" + ("" if fitted == "wikipedia" else f" ({fitted})")
            folder = CACHE / "scores" / arguments.name / label.replace(" ", "_")
            folders[label] = folder
            if folder.exists():
                continue
            by = _map(kept, reading, method, fitting[fitted])
            encode = kept.encoder(reading, by)
            scores = run(stand_in, tasks, Settings(), label=label, identity=label, encode=encode)
            scores.save(folder)
            print(f"{time.strftime('%H:%M:%S')} {label} {scores.average:.4f}", flush=True)
    table(folders, arguments.forms)


def _map(kept: Kept, reading: str, method: str, texts: Sequence[str]) -> AffineMap:
    width = kept.facts["width"]
    if method == "none":
        return AffineMap(np.eye(width), np.zeros(width))
    moments = Moments(width)
    moments.add(kept.vectors(texts, reading))
    return fit(method, moments, kept.head_weight)


def table(folders: dict[str, Path], forms: Sequence[str]) -> None:
    """Print the systems against the first form's last layer as it is, with paired intervals, and task by task."""
    compared = antiphon.compare(list(folders.values()))
    print("\n| form, reading, calibration | average | minus the first | 95 % | " + " | ".join(compared.tasks) + " |")
    print("|---" * (4 + len(compared.tasks)) + "|")
    for system in compared.systems:
        gain = system.difference
        told = " |  " if gain is None else f"{100 * gain.mean:+.1f} | {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        cells = " | ".join(f"{100 * figures.main:.1f}" for figures in system.tasks.values())
        print(f"| {system.label} | {100 * system.average.mean:.1f} | {told} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("embed")
    first.add_argument("model")
    first.add_argument("name")
    first.add_argument("form", choices=FORMS)
    first.set_defaults(run=embed)
    second = commands.add_parser("score")
    second.add_argument("model")
    second.add_argument("name")
    second.add_argument("forms", nargs="+", choices=FORMS)
    second.set_defaults(run=score)
    for command in (first, second):
        command.add_argument("--tasks", nargs="*", default=TASKS)
        command.add_argument("--fit", nargs="*", default=["wikipedia"])
        command.add_argument("--data", type=Path, default=Path("../shared/data"))
        command.add_argument("--limit", type=int, default=80)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
