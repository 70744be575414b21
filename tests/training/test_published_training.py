"""What the published trainers do beside the loss: a longer schedule, bf16 weights, texts packed into blocks."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from published_data import SHIPPED

import antiphon
from antiphon import training
from antiphon.errors import ConfigError
from antiphon.text.template import Template
from antiphon.text.tokens import PieceTokenizer
from antiphon.training.losses import MaskingSettings
from antiphon.training.losses.mntp import IGNORED, TARGETS, MaskingPreprocessor
from antiphon.training.recipe import read
from antiphon.training.token_blocks import token_blocks

pytestmark = pytest.mark.usefixtures("warm_checks")

WORDS = ["the", "module", "reads", "a", "file", "and", "gives", "its", "lines", "as", "a", "list", "of", "strings"]


def recipe(tmp_path: Path, **stage) -> dict:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": f"{word} {n}", "positive": f"about {word} {n}"} for n in range(8) for word in WORDS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "run",
        "out": str(tmp_path / "run"),
        "model": {"base": str(SHIPPED), "template": "classical", "pooling": "last", "max_tokens": 32},
        "data": {"sets": [{"name": "pairs", "source": str(pairs)}]},
        "stage": [{"name": "one", "loss": "contrastive", "steps": 4, "batch_size": 8, "log_every": 1, **stage}],
    }


def rates(folder: Path) -> list[float]:
    history = json.loads((folder / "run.json").read_text())["stages"][0]["history"]
    return [entry["learning_rate"] for entry in history if "learning_rate" in entry]


def test_a_schedule_may_end_later_than_the_stage(tmp_path):
    """The rate at step n is that of a run planned over all of the horizon: 3.2e-5 at Anchor's step 2,000 of 8,800."""
    options = {"warmup_steps": 2, "learning_rate": 1e-3}
    found = rates(antiphon.train(recipe(tmp_path, schedule_steps=10, **options)))
    assert found == pytest.approx([0.0, 5e-4, 1e-3, 1e-3 * 7 / 8], rel=1e-6)
    assert pytest.approx(3.2e-5) == 4e-5 * (8800 - 2000) / (8800 - 300)
    (tmp_path / "epochs").mkdir()
    epochs = recipe(tmp_path / "epochs", schedule_epochs=1, **options)
    rows = 8 * len(WORDS)
    assert rates(antiphon.train(epochs))[-1] == pytest.approx(1e-3 * (rows // 8 - 3) / (rows // 8 - 2), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"schedule_steps": 3}, "schedule_steps 3 is less than steps 4"),
        ({"schedule_steps": 9, "schedule_epochs": 1}, "schedule_steps or schedule_epochs, one of them"),
        ({"schedule_epochs": 0.1}, "the schedule ends after 1 steps and the stage has 4"),
    ],
)
def test_a_schedule_that_ends_too_early_is_refused(tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        antiphon.train(recipe(tmp_path, **options))


def test_bf16_pure_trains_bf16_weights_and_moments(tmp_path, caplog):
    given = recipe(tmp_path, precision="bf16-pure", learning_rate=1e-2, keep_checkpoints=True)
    with caplog.at_level(logging.WARNING):
        folder = antiphon.train(given)
    assert "at a rate of 4e-5 about 8 % of the weights move" in caplog.text
    model = antiphon.load(folder)
    before = antiphon.build(SHIPPED, "classical", pooling="last", max_tokens=32, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert not torch.equal(next(model.parameters()), next(before.parameters()))
    checkpoint = max((folder / "stages" / "1-one" / "checkpoints").glob("checkpoint-*"))
    assert not (checkpoint / "README.md").exists()  # compiling a card takes longer than writing a small model
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert {moments["exp_avg"].dtype for moments in state.values()} == {torch.bfloat16}
    planned = training.plan(read(given)).stages[0].memory
    assert planned < training.plan(read(given, overrides={"precision": "bf16"})).stages[0].memory


def test_bf16_pure_keeps_adapters_in_float32(tmp_path):
    folder = antiphon.train(
        recipe(tmp_path, precision="bf16-pure", lora={"rank": 2, "alpha": 2}, keep_checkpoints=True)
    )
    checkpoint = max((folder / "stages" / "1-one" / "checkpoints").glob("checkpoint-*"))
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert {moments["exp_avg"].dtype for moments in state.values()} == {torch.float32}


def test_blocks_are_the_texts_joined_and_cut():
    pieces = PieceTokenizer(antiphon.build(SHIPPED, "classical", max_tokens=32).tokenizer)
    texts = [" ".join(WORDS[n:] + WORDS[:n]) for n in range(12)]
    joined = [number for text in texts for number in [pieces.specials.bos, *pieces.texts([text], first=True)[0]]]
    rows = token_blocks(texts, pieces, 16)
    assert {len(row) for row in rows} == {16}
    assert sum(rows, []) == joined[: len(joined) // 16 * 16]  # noqa: RUF017
    assert token_blocks(texts * 100, pieces, 16)[: len(rows) - 1] == rows[: len(rows) - 1]


def test_a_block_is_masked_but_for_its_first_token_and_every_bos():
    model = antiphon.build(SHIPPED, "classical", max_tokens=32, bidirectional=True)
    preprocess = MaskingPreprocessor(model, MaskingSettings(share=1.0, style="all"))
    bos = preprocess.texts.pieces.specials.bos
    rows = [[5, 6, bos, 7], [bos, 8, 9, 10]]
    batch = preprocess(rows)
    assert batch[TARGETS].tolist() == [[IGNORED, 6, IGNORED, 7], [IGNORED, 8, 9, 10]]
    assert batch["attention_mask"].all()


def test_mntp_trains_on_blocks_and_simcse_refuses_them(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(" ".join(WORDS[n % 12 :]) + "\n" for n in range(200)))
    given = {
        **recipe(tmp_path),
        "model": {"base": str(SHIPPED), "template": "classical", "max_tokens": 32, "bidirectional": True},
        "data": {"texts": str(texts), "block": 16},
        "stage": [{"name": "one", "loss": "mntp", "steps": 2, "batch_size": 4}],
    }
    planned = training.plan(read(given)).stages[0]
    assert (planned.tokens_a_text, planned.measured) == (16, True)
    assert planned.sets[0].rows != planned.sets[0].source_rows == 200
    antiphon.train(given)
    with pytest.raises(ConfigError, match=r"what mntp and next_token read, .*leave data\.block out"):
        antiphon.train(given, overrides={"out": str(tmp_path / "other"), "loss": "simcse"})


def test_a_template_of_two_variants_goes_through_recipe_record_folder_and_export(tmp_path):
    table = {"query": "Ask\n{prompt}; [{text}]", "document": "Say\n[{text}]", "eos": False}
    given = recipe(tmp_path, steps=1)
    given["model"] = {"base": str(SHIPPED), "pooling": "mean", "max_tokens": 32, "template": table}
    folder = antiphon.train(given)
    assert json.loads((folder / "run.json").read_text())["recipe"]["model"]["template"].items() >= table.items()
    antiphon.train(given, resume=True)  # the record is known for the same recipe
    spelled = Template("custom", table["query"], table["document"], eos=False)
    model = antiphon.load(folder)
    antiphon.export(model, to="hub", out=tmp_path / "hub")
    exported = antiphon.load(tmp_path / "hub")
    assert model[0].template_spec == exported[0].template_spec == spelled
    told = [
        model.tokenizer.decode(model.preprocess(["x"], prompt=prompt, task=side)["input_ids"][0])
        for side, prompt in (("query", "Do"), ("document", ""))
    ]
    assert [words.removeprefix("<s>") for words in told] == ["Ask\nDo; x", "Say\nx"]


def test_a_template_table_is_strict(tmp_path):
    given = recipe(tmp_path)
    given["model"]["template"] = {"quary": "{text}"}
    with pytest.raises(ConfigError, match=r"model\.template\.quary is unknown; did you mean 'query'"):
        read(given)
    given["model"]["template"] = {"query": "no slot"}
    with pytest.raises(ConfigError, match=r"no \{text\} slot in template 'custom'"):
        antiphon.train(given)
    given["model"] = {"base": str(SHIPPED), "template": "classical", "eos": False}
    assert read(given).model.template_spec.eos is False
