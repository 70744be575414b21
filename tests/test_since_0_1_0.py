"""What 0.1.0 wrote still loads and gives the vectors, and what it trained and scored comes out the same.

`fixtures/written-by-0.1.0` was written by that release (torch 2.13, transformers 5.23, float32, one thread) from a tiny
random Llama: a folder of each kind of model, a run, an index, a BEIR folder with its score, and in vectors.npz the
vectors of the unlike texts under each.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import vectors

import antiphon
from antiphon.model.parity import compare, unlike_texts

OLD = Path(__file__).parent / "fixtures" / "written-by-0.1.0"
FOLDERS = ("stock-classical", "stock-echo", "slots-echo-mean", "slots-instructed-echo", "slots-bidirectional")
RECIPE = {
    "seed": 3,
    "model": {
        "base": str(OLD / "base"),
        "template": "classical",
        "pooling": "last",
        "max_tokens": 48,
        "dtype": "float32",
    },
}
PAIRS = {"sets": [{"name": "made", "source": str(OLD / "pairs.jsonl")}]}
TEXTS = {"texts": str(OLD / "texts.txt")}
STAGE = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
RUNS = {
    "run": (PAIRS, ("reconstruction", "contrastive"), False),
    "mntp": (TEXTS, ("mntp",), True),
    "simcse": (TEXTS, ("simcse",), False),
}


def before(name: str) -> np.ndarray:
    with np.load(OLD / "vectors.npz") as arrays:
        return arrays[name.replace("/", "__")]


def same(now: np.ndarray, name: str) -> bool:
    return compare(now, before(name)).equal


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_loads_and_gives_its_vectors(folder):
    model = antiphon.load(OLD / folder)
    assert same(vectors(model, unlike_texts(), prompt_name="query"), f"{folder}/query")
    assert same(np.asarray(model.encode_document(unlike_texts(), show_progress_bar=False)), f"{folder}/document")
    assert same(antiphon.Encoder(model).encode_query(unlike_texts()), f"{folder}/query")


def test_a_run_loads_as_the_model_of_its_last_stage():
    assert same(vectors(antiphon.load(OLD / "run"), unlike_texts(), prompt_name="query"), "run/query")


def test_an_index_is_searched():
    model = antiphon.load(OLD / "stock-echo")
    texts = [json.loads(line) for line in (OLD / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in texts[:3]:
        hits = antiphon.search(OLD / "index", row["text"], model=model, top=1)
        assert (hits[0].id, hits[0].text) == (row["id"], row["text"])


@pytest.mark.parametrize("name", RUNS)
def test_training_gives_the_same_model(name, tmp_path):
    data, losses, bidirectional = RUNS[name]
    recipe = {
        **RECIPE,
        "name": name,
        "out": str(tmp_path / name),
        "model": {**RECIPE["model"], "bidirectional": bidirectional},
        "data": data,
        "stage": [{"name": loss, "loss": loss, **STAGE} for loss in losses],
    }
    model = antiphon.load(antiphon.train(recipe))
    assert same(vectors(model, unlike_texts(), prompt_name="query"), f"{name}/query")


def test_a_score_is_the_same(tmp_path):
    model = antiphon.load(OLD / "slots-echo-mean")
    scores = antiphon.evaluate(model, [str(OLD / "beir")], cache=tmp_path)
    assert scores["beir"].main == pytest.approx(json.loads((OLD / "scores.json").read_text())["beir"], abs=1e-4)
