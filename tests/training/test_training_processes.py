"""Runs over processes: two under torchrun are one with the same global batch; a killed one is resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_training import place, recipe, record  # noqa: F401  (a fixture)

import antiphon
from antiphon.cli import main

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def as_toml(table) -> str:
    """The few shapes of TOML that a recipe here has: nested values as inline tables."""

    def inline(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {inline(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(inline, value)) + "]"
        return json.dumps(value)

    return "\n".join(f"{key} = {inline(value)}" for key, value in table.items())


def without_dropout(table):
    for stage in table["stage"]:
        stage["steps"] = 3
        stage["learning_rate"] = 1e-3
        if "lora" in stage:
            stage["lora"]["dropout"] = 0.0
    table["stage"][0]["device_batch_size"] = 4
    return table


@pytest.mark.slow
def test_two_processes_are_one_with_the_same_batch(place, tmp_path, programs):  # noqa: F811
    """The command line under torchrun: sampler, accumulation, gathering, ragged negatives, two stages, one folder."""
    one = without_dropout(recipe(place, tmp_path / "one"))
    one["stage"][0]["loss"] = "contrastive"  # a mean over the global batch, whoever has which rows
    one["stage"][0] |= {"batch_size": 8, "device_batch_size": 8}
    antiphon.train(one)
    two = without_dropout(recipe(place, tmp_path / "two"))
    two["stage"][0]["loss"] = "contrastive"
    two["stage"][0] |= {"batch_size": 8, "device_batch_size": 4}
    (tmp_path / "two.toml").write_text(as_toml(two))
    command = [str(programs / "python"), "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*command, "--master-port", "29577", str(programs / "antiphon"), "train", str(tmp_path / "two.toml")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str(tmp_path / "two")  # one process speaks
    assert record(tmp_path / "two")["processes"] == 2
    for stage in ("1-reconstruction", "2-contrastive"):
        weights = [
            load_file(tmp_path / run / "stages" / stage / "model" / "model.safetensors") for run in ("one", "two")
        ]
        before = load_file(place / "untied" / "model.safetensors")
        moved = max((weights[0][name] - before[name]).abs().max() for name in before)
        apart = max((weights[0][name] - weights[1][name]).abs().max() for name in before)
        assert moved > 1e-3
        assert apart < 0.02 * moved, (stage, apart, moved)


@pytest.mark.slow
def test_killed_in_the_middle_of_checkpoints_it_is_resumed_to_the_same_weights(place, tmp_path, programs):  # noqa: F811
    table = recipe(place, tmp_path / "run")
    table["stage"] = [{**table["stage"][0], "steps": 8, "save_every": 1}]
    whole = antiphon.train({**table, "out": str(tmp_path / "whole")})
    (tmp_path / "run.toml").write_text(as_toml(table))
    command = [str(programs / "antiphon"), "train", str(tmp_path / "run.toml"), "--resume"]
    checkpoints = tmp_path / "run/stages/1-reconstruction/checkpoints"
    for already in (1, 4):  # killed twice, each time as soon as a new checkpoint begins to be written
        child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(checkpoints.glob(f"checkpoint-{already}*"))) == 0 and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    fingerprints = [record(run)["stages"][0]["fingerprint"] for run in (whole, tmp_path / "run")]
    assert fingerprints[0] == fingerprints[1]


def test_the_command_line_trains_plans_and_decodes(place, tmp_path, capfd):  # noqa: F811
    table = recipe(place, tmp_path / "run")
    table["stage"] = [{**table["stage"][0], "steps": 1, "device_batch_size": 8}]
    (tmp_path / "run.toml").write_text(as_toml(table))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return SimpleNamespace(returncode=ended.value.code or 0, **capfd.readouterr()._asdict())

    planned = run("train", tmp_path / "run.toml", "--plan")
    assert planned.returncode == 0, planned.err
    assert "reconstruction" in planned.out
    assert not (tmp_path / "run").exists()
    trained = run("train", tmp_path / "run.toml", "--set", "stage.reconstruction.learning_rate=1e-3")
    assert trained.returncode == 0, trained.err
    assert trained.out.strip() == str(tmp_path / "run")
    assert "step 1 of 1" in trained.err
    decoded = run("reconstruct", tmp_path / "run", "red apples", "--length", 5)
    assert decoded.returncode == 0, decoded.err
    assert decoded.out.strip()
    for arguments in (
        ("train", tmp_path / "missing.toml"),
        ("train", tmp_path / "run.toml"),  # a run stands there
        ("train", tmp_path / "run.toml", "--set", "stage.one.steps=1"),
        ("reconstruct", tmp_path / "nowhere", "a text"),
    ):
        refused = run(*arguments)
        assert refused.returncode == 2
        assert refused.err.startswith("error: ")
        assert "Traceback" not in refused.err


def test_bf16_and_gradient_checkpointing(place, tmp_path):  # noqa: F811
    table = recipe(place, tmp_path / "run")
    for stage in table["stage"]:
        stage |= {"steps": 2, "precision": "bf16", "gradient_checkpointing": True}
    stages = record(antiphon.train(table))["stages"]
    assert all(torch.isfinite(torch.tensor(stage["history"][0]["loss"])) for stage in stages)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_best_checkpoint_is_taken_and_training_stops_early(place, tmp_path, precision):  # noqa: F811
    """Selected by a task of its own data, through the evaluator, in the weights' dtype; a rate this high is no good."""
    tasks = tmp_path / "toy"
    (tasks / "qrels").mkdir(parents=True)
    from test_training import phrase

    (tasks / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "text": phrase(n, 8)}) + "\n" for n in range(20))
    )
    (tasks / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": phrase(n, 3)}) + "\n" for n in range(20))
    )
    (tasks / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(20))
    )
    table = recipe(place, tmp_path / "run")
    evaluation = {"tasks": [str(tasks)], "every": 1, "best": True, "patience": 2, "instructions": {"toy": ""}}
    table["stage"] = [
        {**table["stage"][0], "steps": 30, "learning_rate": 0.3, "save_every": None, "evaluation": evaluation}
        | {"precision": precision}
    ]
    folder = antiphon.train(table)
    (stage,) = record(folder)["stages"]
    scores = {entry["step"]: entry["eval_average"] for entry in stage["history"] if "eval_average" in entry}
    assert stage["best_step"] == max(scores, key=lambda step: (scores[step], -step))
    assert stage["steps"] == stage["best_step"] + 2 < 30
    from antiphon.evaluation import evaluator

    again = evaluator([str(tasks)], instructions={"toy": ""})(antiphon.load(folder, device="cpu"))
    assert again["average"] == pytest.approx(scores[stage["best_step"]], abs=1e-6)
