"""A run's folder is a model's: stock readers take it, it has a card and little weight, or an adapter alone."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.cli import main
from antiphon.compat import lora_unavailable
from antiphon.errors import ConfigError
from antiphon.model import parity
from antiphon.model.base import stored_dtype
from antiphon.training.recipe import read
from antiphon.training.stage import opened
from antiphon.training.trial import try_losses

LORA = {"lora": {"rank": 2, "dropout": 0.0}}
needs_lora = pytest.mark.skipif(lora_unavailable() is not None, reason=str(lora_unavailable()))


@pytest.fixture
def recipe(tiny_base, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": f"question number {n}", "positive": f"page {n} answers it"} for n in range(8)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**stage):
        return {
            "name": "mine",
            "out": str(tmp_path / "run"),
            "model": {"base": str(tiny_base), "template": "classical", "pooling": "last", "max_tokens": 64},
            "data": {"sets": [{"name": "pages", "source": str(pairs), "instruction": "Find the page"}]},
            "stage": [
                {"name": "one", "loss": "contrastive", "steps": 2, "batch_size": 4, "learning_rate": 1e-2, **stage}
            ],
        }

    return make


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"loss": "contrastive", "settings": {"matryoshka": [4096]}}, "matryoshka has 4096 and a vector of this model"),
        ({"loss": "reconstruction", "settings": {"preset": "as_published"}}, "is told by a template's slots"),
        ({"loss": "mntp"}, "is for bidirectional attention and this model is causal"),
    ],
    ids=["width", "template", "attention"],
)
def test_what_a_later_stage_cannot_work_with_is_said_before_the_first_step(recipe, tmp_path, later, said):
    table = recipe()
    table["stage"].append({"name": "two", "steps": 2, "batch_size": 4, "learning_rate": 1e-2, **later})
    with pytest.raises(ConfigError, match=said) as raised:
        antiphon.train(table)
    assert str(raised.value).startswith(f"stage.two ({later['loss']}): ")
    assert not (tmp_path / "run").exists()


def test_losses_are_tried_on_a_model_whose_layers_cannot_be_left_off(recipe):
    asked = read(recipe())
    model = opened(asked.model, asked.model.base)
    layers = len(model[0].model.layers)
    model[0].model.config.num_kv_shared_layers = 1  # as Gemma 3n has
    try_losses(model, asked.stage)
    assert len(model[0].model.layers) == layers > 1


def test_stock_sentence_transformers_reads_the_run_and_the_card_says_what_it_is(recipe):
    run = antiphon.train(recipe())
    model = antiphon.load(run, device="cpu")
    assert parity.between(SentenceTransformer(str(run), device="cpu"), model).error_against_spread == 0
    assert parity.between(antiphon.load(run / "stages/1-one/model", device="cpu"), model).error_against_spread == 0
    assert not (run / "stages/1-one/checkpoints").exists()
    linked = [run / inside / "model.safetensors" for inside in (".", "stages/1-one/model")]
    assert linked[0].samefile(linked[1])  # on the disk once
    card = (run / "README.md").read_text()
    for part in (
        'SentenceTransformer("path/or/id")',
        "pages (8 rows)",
        '"learning_rate": 0.01',
        "Prompt `query`",
        "loss",
    ):
        assert part in card
    shutil.rmtree(run / "stages")
    assert parity.between(antiphon.load(run, device="cpu"), model).error_against_spread == 0


def test_a_later_stage_takes_the_place_of_the_first_and_files_of_the_user_stay(recipe):
    table = recipe(keep_checkpoints=True)
    table["stage"].append({**table["stage"][0], "name": "two", "keep_checkpoints": False})
    run = antiphon.train(table, until="one")
    first = load_file(run / "model.safetensors")
    (run / "notes.txt").write_text("mine")
    antiphon.train(table, first="two", resume=True)
    assert (run / "notes.txt").read_text() == "mine"
    assert not first["model.norm.weight"].equal(load_file(run / "model.safetensors")["model.norm.weight"])
    kept = {stage: list((run / "stages" / stage).glob("checkpoints/checkpoint-*")) for stage in ("1-one", "2-two")}
    assert kept["1-one"]
    assert not kept["2-two"]


@pytest.mark.parametrize("told", [None, "float32"])
def test_weights_have_the_dtype_of_the_base_unless_told(recipe, tiny_base, tmp_path, told):
    base = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=64, dtype="bfloat16")
    folder = antiphon.save(base, tmp_path / "base")
    assert stored_dtype(str(folder)) == "bfloat16"
    table = recipe()
    table["model"] = {"base": str(folder)} | ({} if told is None else {"save_dtype": told})
    run = antiphon.train(table)
    wanted = torch.bfloat16 if told is None else torch.float32
    assert {tensor.dtype for tensor in load_file(run / "model.safetensors").values()} == {wanted}
    assert json.loads((run / "run.json").read_text())["stages"][0]["steps"] == 2


@needs_lora
def test_an_adapter_is_kept_alone_and_merged_later(recipe, tmp_path):
    run = antiphon.train(recipe(**LORA, adapter="keep"))
    assert (run / "adapter_model.safetensors").exists()
    assert not (run / "model.safetensors").exists()
    kept = antiphon.load(run, device="cpu")
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(run), "--out", str(tmp_path / "whole")])
    assert not ended.value.code
    assert (tmp_path / "whole" / "model.safetensors").exists()
    assert parity.between(antiphon.load(tmp_path / "whole", device="cpu"), kept).equal
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(tmp_path / "whole"), "--out", str(tmp_path / "again")])
    assert ended.value.code == 2
    assert not (tmp_path / "again").exists()


def test_an_adapter_that_nobody_could_use_is_refused(recipe):
    with pytest.raises(ConfigError, match="the stage has no lora"):
        read(recipe(adapter="keep"))
    table = recipe(**LORA, adapter="keep")
    table["stage"].append({**recipe()["stage"][0], "name": "two"})
    with pytest.raises(ConfigError, match="stage 'one' keeps its adapter, and the next one needs the whole model"):
        read(table)
