"""Runs: two stages in one folder, resumed to the same weights, and what breaks a run is a sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import make_base
from safetensors.torch import load_file

import antiphon
from antiphon.errors import CheckpointError, ConfigError, DataError, ModelError, TrainingError
from antiphon.model import parity
from antiphon.training.callbacks import COMPLETE, last_checkpoint
from antiphon.training.losses.head import HEAD_FILE
from antiphon.training.plan import plan
from antiphon.training.recipe import read

WORDS = [*"abcdefghij", "apple", "sea", "hill", "stone", "wall", "wave", "sheep", "castle", "moon", "rain"]


def phrase(number: int, length: int) -> str:
    return (
        " ".join(WORDS[(number * 7 + place * (3 + number % 5)) % len(WORDS)] for place in range(length)) + f" {number}"
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Untied and tied bases whose configuration says that EOS pads, and two sets with 0 to 2 hard negatives."""
    root = tmp_path_factory.mktemp("training")
    for tied in (False, True):
        make_base(root / ("tied" if tied else "untied"), pad_token_id=2, tie_word_embeddings=tied)
    with (root / "one.jsonl").open("w") as lines:
        for number in range(40):
            row = {"query": phrase(number, 3), "positive": phrase(number, 8), "negative": phrase(number + 500, 8)}
            lines.write(json.dumps(row) + "\n")
    with (root / "two.jsonl").open("w") as lines:
        for number in range(100, 124):
            negatives = [phrase(number + 700 + extra, 6) for extra in range(number % 3)]
            lines.write(
                json.dumps({"query": phrase(number, 4), "positive": phrase(number, 6), "negative": negatives}) + "\n"
            )
            lines.write("\n" if number == 110 else "")
    (root / "texts.txt").write_text("\n".join(phrase(number, 12) for number in range(60)))
    return root


def recipe(place, out, **changes):
    table = {
        "name": "tiny",
        "seed": 3,
        "out": str(out),
        "model": {"base": str(place / "untied"), "template": "echo", "pooling": "last", "max_tokens": 64},
        "data": {
            "root": str(place),
            "sets": [
                {"name": "one", "source": "one.jsonl", "instruction": ["Find it", "Seek it"]},
                {"name": "two", "source": "two.jsonl", "weight": 1.0},
            ],
        },
        "stage": [
            {
                "name": "reconstruction",
                "loss": "reconstruction",
                "steps": 6,
                "batch_size": 8,
                "device_batch_size": 4,
                "learning_rate": 1e-2,
                "log_every": 1,
                "save_every": 2,
            },
            {
                "name": "contrastive",
                "loss": "contrastive",
                "steps": 6,
                "batch_size": 6,
                "learning_rate": 1e-2,
                "log_every": 1,
                "save_every": 2,
                "settings": {"mini_batch_size": 4},
                "lora": {"rank": 4, "dropout": 0.1, "train_eos": True},
            },
        ],
    }
    table["data"]["sets"][0]["weight"] = 1.0
    return {**table, **changes}


@pytest.fixture(scope="module")
def whole(place):
    """An uninterrupted run, with the lines that it told."""
    lines = []
    return antiphon.train(recipe(place, place / "whole"), on_step=lines.append), lines


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_run_leaves_models_records_and_lineage(place, whole):
    folder, lines = whole
    assert folder == place / "whole"
    run = record(folder)
    one, two = run["stages"]
    assert run["checkpoint"] == two["model"] == "stages/2-contrastive/model"
    assert two["base"] == one["model"]
    assert two["base_fingerprint"] == one["fingerprint"] != two["fingerprint"]
    assert [one["steps"], two["steps"]] == [6, 6]
    skipped = {entry["set"]: entry["skipped"] for entry in one["data"]}
    assert skipped == {"one": {}, "two": {"blank lines between rows": 1}}
    assert one["history"][0].keys() >= {"loss", "ebq2d", "ebd2q", "step"}
    assert one["history"][4]["loss"] < one["history"][0]["loss"]
    assert run["recipe"]["stage"][1]["lora"]["rank"] == 4
    assert any("one: 40 rows" in line for line in lines)
    assert any("step 6 of 6: loss" in line for line in lines)


def test_the_run_folder_stands_for_its_last_model(whole):
    folder, _ = whole
    stages = [
        antiphon.load(folder / "stages" / name / "model", device="cpu")
        for name in ("1-reconstruction", "2-contrastive")
    ]
    last = antiphon.load(folder, device="cpu")
    assert parity.between(last, stages[1]).error_against_spread == 0
    assert not parity.between(stages[0], stages[1]).equal
    assert not list(folder.glob("stages/*/model/adapter*"))  # merged
    from antiphon.model.opening import open_model

    assert parity.between(open_model(str(folder)), stages[1]).error_against_spread == 0


def test_the_trained_head_is_saved(place, whole):
    folder, _ = whole
    heads = [
        load_file(path / "model.safetensors")["lm_head.weight"]
        for path in (place / "untied", folder / "stages/1-reconstruction/model", folder / "stages/2-contrastive/model")
    ]
    assert not heads[0].equal(heads[1])  # Stage I trained it
    assert heads[1].equal(heads[2])  # Stage II has no use for it


class Interrupted(Exception):
    pass


def interrupted(table, *, stage: str, at: str, resume: bool = False):
    """Run until a line of a stage, as if the machine had been turned off there."""
    current = ""

    def tell(line):
        nonlocal current
        current = line if line.startswith("stage") else current
        if current.startswith(f"stage {stage}:") and line.startswith(f"  step {at} "):
            raise Interrupted

    with pytest.raises(Interrupted):
        antiphon.train(table, resume=resume, on_step=tell)


def test_resumed_is_bit_for_bit_what_an_uninterrupted_run_is(place, whole, tmp_path):
    """Full training with an untied head and accumulation, then LoRA with dropout, GradCache and ragged negatives."""
    table = recipe(place, tmp_path / "run")
    for stage, name in (("reconstruction", "1-reconstruction"), ("contrastive", "2-contrastive")):
        interrupted(table, stage=stage, at="5", resume=stage == "contrastive")
        assert last_checkpoint(tmp_path / "run" / "stages" / name / "checkpoints").name == "checkpoint-4"
    lines = []
    folder = antiphon.train(table, resume=True, on_step=lines.append)
    assert not any("step 4 of" in line and "loss" in line for line in lines[:4])
    assert [one["fingerprint"] for one in record(folder)["stages"]] == [
        one["fingerprint"] for one in record(whole[0])["stages"]
    ]
    losses = [[entry["loss"] for entry in one["history"] if "loss" in entry] for one in record(folder)["stages"]]
    assert losses == [
        [entry["loss"] for entry in one["history"] if "loss" in entry] for one in record(whole[0])["stages"]
    ]


def test_a_torn_checkpoint_is_passed_over(place, whole, tmp_path):
    table = recipe(place, tmp_path / "run")
    interrupted(table, stage="reconstruction", at="5")
    torn = tmp_path / "run/stages/1-reconstruction/checkpoints/checkpoint-4"
    assert (torn / HEAD_FILE).exists()
    (torn / COMPLETE).unlink()
    (torn / "model.safetensors").write_bytes(b"half of it")
    folder = antiphon.train(table, until="reconstruction", resume=True)
    assert record(folder)["stages"][0]["fingerprint"] == record(whole[0])["stages"][0]["fingerprint"]


def test_nothing_is_trained_over(place, whole):
    folder, _ = whole
    table = recipe(place, folder)
    with pytest.raises(CheckpointError, match="A run stands in"):
        antiphon.train(table)
    with pytest.raises(ConfigError, match=r"another recipe: stage\.0\.learning_rate \(was 0.01, is 0.5\)"):
        antiphon.train(table, overrides={"stage.reconstruction.learning_rate": 0.5}, resume=True)
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"compile": false,', ""))
    assert "compile" not in record(folder)["recipe"]["stage"][0]  # as a release wrote it that did not know the setting
    before = (folder / "run.json").read_bytes()
    lines = []
    antiphon.train(table, resume=True, on_step=lines.append)  # all is done: nothing happens
    assert all("finished before" in line for line in lines)
    assert (folder / "run.json").read_bytes() == before
    (folder.parent / "occupied").mkdir()
    (folder.parent / "occupied" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds no run"):
        antiphon.train(recipe(place, folder.parent / "occupied"))


def test_from_and_until_a_stage(place, whole, tmp_path):
    table = recipe(place, tmp_path / "run")
    folder = antiphon.train(table, until="reconstruction")
    assert [one["name"] for one in record(folder)["stages"]] == ["reconstruction"]
    antiphon.train(table, first="contrastive", resume=True)
    assert record(folder)["stages"][1]["fingerprint"] == record(whole[0])["stages"][1]["fingerprint"]
    with pytest.raises(ConfigError, match="no stage 'second'; take one of reconstruction, contrastive"):
        antiphon.train(table, first="second")
    with pytest.raises(ConfigError, match="comes before"):
        antiphon.train(table, first="contrastive", until="reconstruction")
    with pytest.raises(CheckpointError, match="no run in"):
        antiphon.train(recipe(place, tmp_path / "new"), first="contrastive")


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"model.base": "no/such/folder"}, ModelError, "no folder no/such/folder"),
        ({"data.root": "/no/such/place"}, DataError, "one.jsonl"),
        ({"strict": True}, DataError, "two.jsonl, line 12: blank lines between rows would be passed over"),
        ({"data.only": ["three"]}, ConfigError, "names three, and .* has one, two"),
        ({"stage.reconstruction.batch_size": 512, "stage.reconstruction.device_batch_size": 512}, DataError, "batch"),
        ({"stage.reconstruction.loss": "hinge"}, ConfigError, "is 'hinge'; take one of reconstruction"),
        ({"stage.contrastive.settings.temprature": 1}, ConfigError, "did you mean 'temperature'"),
        ({"model.attention": "flash_attention_9"}, ConfigError, "model.attention is 'flash_attention_9'"),
        ({"stage.reconstruction.schedule": "downhill"}, ConfigError, "cannot be set up: downhill is not a valid"),
        ({"report_to": ["abacus"]}, ConfigError, "cannot be set up: abacus is not supported"),
        ({"stage.contrastive.lora.targets": ["nothing"], "stage.reconstruction.steps": 1}, ConfigError, "LoRA cannot"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(place, tmp_path, changes, error, sentence):
    with pytest.raises(error, match=sentence):
        antiphon.train(recipe(place, tmp_path / "run"), overrides=changes)


def test_nothing_left_after_the_overlap_is_dropped(place, tmp_path):
    evaluation = tmp_path / "evaluation.txt"
    evaluation.write_text("\n".join(phrase(number, 3) for number in range(40)))
    table = recipe(place, tmp_path / "run")
    table["data"]["overlap"] = {"texts": str(evaluation), "near": 1.0, "drop": True}
    with pytest.raises(DataError, match="Every pair of the set 'one#1' shares a text"):
        antiphon.train(table)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_whole_checkpoints(place, tmp_path):
    table = recipe(place, tmp_path / "run")
    changes = {"learning_rate": 1e38, "warmup_steps": 3, "save_every": 1}  # the first step has a rate of 0
    with pytest.raises(
        TrainingError, match=r"Stage 'reconstruction': \w+ is (nan|inf) at step [34]\. Nothing was saved"
    ):
        antiphon.train(table, overrides={f"stage.reconstruction.{name}": value for name, value in changes.items()})
    last = last_checkpoint(tmp_path / "run/stages/1-reconstruction/checkpoints")
    assert last is not None
    assert all(tensor.isfinite().all() for tensor in load_file(last / "model.safetensors").values())
    with pytest.raises(CheckpointError, match="has not finished a stage"):
        antiphon.load(tmp_path / "run")


def test_epochs_are_counted_in_whole_batches(place, tmp_path):
    table = recipe(place, tmp_path / "run")
    table["data"]["sets"] = [{"name": "one", "source": "one.jsonl"}]
    table["stage"] = [{"name": "only", "loss": "contrastive", "epochs": 1.5, "batch_size": 8}]
    assert record(antiphon.train(table))["stages"][0]["steps"] == 8  # of 5 batches an epoch


def test_masks_and_dropout_are_the_same_in_a_resumed_run(place, tmp_path):
    def texts(out):
        table = recipe(place, out, data={"texts": str(place / "texts.txt")})
        table["model"]["bidirectional"] = True
        common = {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "log_every": 1, "save_every": 2}
        table["stage"] = [{"name": loss, "loss": loss, **common} for loss in ("mntp", "simcse")]
        return table

    whole = record(antiphon.train(texts(tmp_path / "whole")))["stages"]
    table = texts(tmp_path / "run")
    interrupted(table, stage="mntp", at="3")
    interrupted(table, stage="simcse", at="3", resume=True)
    resumed = record(antiphon.train(table, resume=True))["stages"]
    assert [one["fingerprint"] for one in resumed] == [one["fingerprint"] for one in whole]


@pytest.mark.parametrize(("loss", "bidirectional"), [("mntp", True), ("next_token", False), ("simcse", False)])
def test_losses_over_plain_texts(place, tmp_path, loss, bidirectional):
    table = recipe(place, tmp_path / "run", data={"texts": str(place / "texts.txt")})
    table["model"]["bidirectional"] = bidirectional
    table["stage"] = [
        {
            "name": "texts",
            "loss": loss,
            "steps": 8,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "log_every": 1,
            "max_tokens": 32,
        }
    ]
    folder = antiphon.train(table)
    (stage,) = record(folder)["stages"]
    losses = [entry["loss"] for entry in stage["history"] if "loss" in entry]
    assert stage["fingerprint"] != stage["base_fingerprint"]
    assert len(losses) == 8
    assert loss == "simcse" or min(losses[4:]) < losses[0]  # a random model tells texts apart already
    model = antiphon.load(folder, device="cpu")
    assert model.max_seq_length == 64  # the stage's own length is not the model's
    assert getattr(model[0].model.config, "is_causal", True) is not bidirectional


def limited(place, programs, table, megabytes):
    """Train in a process that can write no file larger than this, as on a full disk."""
    path = place / "limited.json"
    path.write_text(json.dumps(table))
    code = (
        "import json, resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({int(megabytes * 2**20)},) * 2)\n"
        "from antiphon import training; from antiphon.errors import AntiphonError\n"
        "try:\n    training.train(json.load(open(sys.argv[1])))\n"
        "except AntiphonError as error:\n    print(f'{type(error).__name__}: {error}')\n"
    )
    return subprocess.run(
        [str(programs / "python"), "-c", code, str(path)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_good(place, tmp_path, programs):
    table = recipe(place, tmp_path / "run")
    early = limited(
        place, programs, table, 0.1
    )  # not even the untouched model fits, which is tried before the first step
    assert early.stdout.startswith("CheckpointError: "), early
    assert "could not be written" in early.stdout
    assert not list(tmp_path.iterdir())
    done = limited(place, programs, table, 0.35)  # the model fits, the optimizer's state does not
    assert done.stdout.startswith("CheckpointError: Stage 'reconstruction': a checkpoint could not be written"), done
    assert last_checkpoint(tmp_path / "run/stages/1-reconstruction/checkpoints") is None
    shutil.rmtree(tmp_path / "run")
    folder = antiphon.train(table, until="reconstruction")
    assert (folder / "run.json").exists()


@pytest.mark.parametrize("family", ["gpt_neox", "phi", "gptj", "mixtral"])
@pytest.mark.slow
def test_heads_of_other_names_and_fused_experts_are_saved_as_they_were_trained(family, place, tmp_path):
    """Full and by LoRA; what cannot be attached is refused before the first step."""
    base = make_base(tmp_path / "base", family)
    for lora in (None, {"rank": 2, "dropout": 0.0}):
        table = recipe(place, tmp_path / f"run-{lora is not None}")
        stage = {"name": "contrast", "loss": "contrastive", "steps": 2, "batch_size": 4, "learning_rate": 1e-3}
        table["model"]["base"] = str(base)
        table["stage"] = [stage if lora is None else {**stage, "lora": lora}]
        (done,) = record(antiphon.train(table))["stages"]
        assert done["fingerprint"] != done["base_fingerprint"]
        assert done["error_against_spread"] <= 1e-3


def test_adapters_that_cannot_be_attached_are_refused_before_the_first_stage(place, tmp_path):
    table = recipe(place, tmp_path / "run")
    table["stage"][-1]["lora"] = {"targets": ["no_such_layer"]}
    with pytest.raises(ConfigError, match="LoRA cannot be attached"):
        antiphon.train(table)
    assert not (tmp_path / "run").exists()


def test_releases_that_cannot_attach_lora_are_told_by_the_plan_and_before_the_first_stage(place, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "99.0")
    table = recipe(place, tmp_path / "run")
    table["stage"][-1]["lora"] = {"rank": 2}
    for do in (antiphon.train, lambda table: plan(read(table))):
        with pytest.raises(ConfigError, match=r"needs peft 99\.0 or newer and peft [\d.]+ is installed"):
            do(table)
    assert not (tmp_path / "run").exists()
