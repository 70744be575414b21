"""A run remembers its data; one that was killed anywhere goes on; one that teaches nothing says so."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_base

import antiphon
from antiphon.errors import CheckpointError, DataError
from antiphon.training import run as running
from antiphon.training.data_digests import changed_sources
from antiphon.training.nothing_learned import stands

TEXTS = [
    f"{word} number {n} of the {place}" for n in range(6) for word in ("apple", "wall") for place in ("sea", "sun")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "base")


def write_pairs(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"query": text[:9] + str(n), "positive": text} for n, text in enumerate(texts))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(base: Path, place: Path, **stage: object) -> dict:
    write_pairs(place / "data" / "one.jsonl", TEXTS)
    common = {"loss": "contrastive", "steps": 2, "batch_size": 4, "save_every": 1, "log_every": 1, **stage}
    return {
        "name": "tiny",
        "out": str(place / "run"),
        "model": {"base": str(base), "max_tokens": 64},
        "data": {"root": str(place), "sets": [{"name": "one", "source": "data/one.jsonl"}]},
        "stage": [{"name": "first", **common}, {"name": "second", **common}],
    }


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_run_remembers_its_data_and_refuses_others(base, tmp_path):
    table = recipe(base, tmp_path)
    source = tmp_path / "data" / "one.jsonl"
    folder = antiphon.train(table, until="first")
    before = record(folder)
    assert list(before["sources"]) == [str(source)]
    assert before["begun"]["first"] == before["stages"][0]["data"]
    write_pairs(source, [*TEXTS[:-1], "another"])
    with pytest.raises(DataError, match=rf"{source} changed since the run in .*--accept-changed-data"):
        antiphon.train(table, resume=True)
    assert record(folder) == before
    antiphon.train(table, resume=True, accept_changed_data=True)
    after = record(folder)
    assert after["sources"] != before["sources"]
    assert [start["stage"] for start in after["starts"]] == ["first", "second"]
    assert [start["changed_data"] for start in after["starts"]] == [[], [str(source)]]
    assert after["starts"][1]["versions"]["torch"] == torch.__version__


def test_versions_are_those_of_each_process(base, tmp_path, monkeypatch):
    table = recipe(base, tmp_path)
    folder = antiphon.train(table, until="first")
    monkeypatch.setattr("antiphon.training.record.version", lambda library: "99")
    antiphon.train(table, resume=True)
    first, second = record(folder)["starts"]
    assert first["versions"]["transformers"] != "99" == second["versions"]["transformers"]


def test_rows_that_are_no_files_are_known_by_what_was_read(base, tmp_path, monkeypatch):
    table = recipe(base, tmp_path)
    folder = antiphon.train(table, until="first")
    content = record(folder)
    content["begun"]["second"] = [{**content["begun"]["first"][0], "fingerprint": "0" * 32}]
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"The rows of one changed since stage 'second' began"):
        antiphon.train(table, resume=True)
    antiphon.train(table, resume=True, accept_changed_data=True)
    assert record(folder)["starts"][-1]["changed_data"] == ["one"]


def test_a_folder_of_data_is_known_file_by_file(tmp_path):
    before = {"d/one.jsonl": "1", "d/two.jsonl": "2", "e.tsv": "3"}
    assert changed_sources(before, before) == []
    assert changed_sources(before, {**before, "d/one.jsonl": "x"}) == ["d/one.jsonl"]
    assert changed_sources(before, {**before, "d/new.jsonl": "x"}) == ["d/new.jsonl"]
    assert changed_sources(before, {"d/one.jsonl": "1", "e.tsv": "3"}) == ["d/two.jsonl"]
    assert changed_sources(before, {**before, "f/other.jsonl": "x"}) == []  # another stage's


def test_killed_between_model_and_record_it_goes_on_to_the_same(base, tmp_path, monkeypatch):
    table = recipe(base, tmp_path)
    whole = record(antiphon.train({**table, "out": str(tmp_path / "whole")}))
    write = running.RunningJob._write

    def killed(self, run):
        if run.stages:
            raise KeyboardInterrupt
        write(self, run)

    with monkeypatch.context() as patched:
        patched.setattr(running.RunningJob, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            antiphon.train(table)
    model = tmp_path / "run" / "stages" / "1-first" / "model"
    assert (model / "modules.json").exists()
    (model / "notes.md").write_text("mine")
    folder = antiphon.train(table, resume=True)
    assert (model / "notes.md").read_text() == "mine"
    stages = record(folder)["stages"]
    assert [stage["steps"] for stage in stages] == [2, 2]
    assert [stage["fingerprint"] for stage in stages] == [stage["fingerprint"] for stage in whole["stages"]]


def test_killed_before_the_record_it_begins_anew(base, tmp_path):
    table = recipe(base, tmp_path)
    (tmp_path / "run" / ".antiphon-trial" / "model").mkdir(parents=True)
    (tmp_path / "run" / ".antiphon.lock").write_text("")
    folder = antiphon.train(table, until="first")
    names = {path.name for path in folder.iterdir()}
    assert {"run.json", "stages", "modules.json"} <= names
    assert not [name for name in names if name.startswith(".antiphon")]


def test_a_finished_stage_is_not_trained_over(base, tmp_path):
    table = recipe(base, tmp_path)
    folder = antiphon.train(table)
    before = record(folder)
    with pytest.raises(
        CheckpointError, match=r"Stage 'second' of the run in .* is finished; go on with it by --resume"
    ):
        antiphon.train(table, first="second")
    assert record(folder) == before
    shutil.rmtree(folder / "stages" / "2-second" / "model")
    antiphon.train(table, resume=True)
    assert record(folder)["stages"][1]["fingerprint"] == before["stages"][1]["fingerprint"]


def only(table: dict, **stage: object) -> dict:
    return {**table, "stage": [{**table["stage"][0], **stage}]}


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.message for entry in caplog.records if entry.name.endswith("nothing_learned")]


def test_a_batch_of_one_pair_is_told_before_and_zero_gradients_after(base, tmp_path, caplog):
    antiphon.train(only(recipe(base, tmp_path), batch_size=1))
    before, after = warned(caplog)
    assert before.startswith("Stage 'first': a batch of one is one pair without negatives")
    assert after.startswith("Stage 'first': all gradients were zero up to step 2")


def test_a_set_that_repeats_one_document_is_told(base, tmp_path, caplog):
    table = only(recipe(base, tmp_path), steps=1)
    write_pairs(tmp_path / "data" / "one.jsonl", [*TEXTS[:6], *["the very same"] * 14])
    antiphon.train(table)
    assert "70 % of the rows of one have one and the same document ('the very same')" in warned(caplog)[0]


def test_a_loss_that_stands_at_that_of_guessing_is_told_at_step_20(base, tmp_path, caplog):
    table = only(recipe(base, tmp_path), steps=25, settings={"temperature": 1e4}, learning_rate=1e-9)
    antiphon.train(table)
    (told,) = warned(caplog)
    assert told.startswith(
        "Stage 'first': at step 20 the loss still is that of guessing, ln of the number of candidates"
    )


@pytest.mark.parametrize("loss", ["contrastive", "reconstruction"])
def test_a_run_that_learns_is_told_nothing(base, tmp_path, caplog, loss):
    caplog.set_level(logging.WARNING)
    antiphon.train(only(recipe(base, tmp_path), loss=loss, steps=21, learning_rate=1e-3))
    assert not warned(caplog)


def test_what_standing_is():
    assert stands([1.0] * 20)
    assert stands([1.003, 0.998] * 10)
    assert not stands([1.0] * 3)
    assert not stands([0.6] * 20)
    assert not stands(list(torch.linspace(1.0, 0.9905, 20)))
