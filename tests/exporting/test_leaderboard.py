"""What the leaderboard is sent: mteb's own reader finds the results and the metadata, and mteb's check has passed."""

from __future__ import annotations

import json
from dataclasses import replace

import mteb
import pytest
from datasets import Dataset, DatasetDict
from mteb.cache import ResultCache
from mteb.results import TaskResult
from mteb.results.task_result import TaskError

import antiphon
from antiphon.cli import main
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.evaluation import SETS, evaluate
from antiphon.exporting.leaderboard import TRAINED_ON, check_name, submit, trained_on
from antiphon.model.parity import unlike_texts
from antiphon.training.record import StageRecord, new

TEXTS = unlike_texts()
ROWS = {
    "sentence1": TEXTS[:12],
    "sentence2": [TEXTS[(n + n % 3) % 12] for n in range(12)],
    "score": [float(5 - n % 3) for n in range(12)],
}


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=64)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Twelve pairs stand for STSBenchmark, which comes from the hub."""
    task = type(mteb.get_task("STSBenchmark"))

    def load(self, **_):
        self.dataset, self.data_loaded = DatasetDict({"test": Dataset.from_dict(ROWS)}), True

    monkeypatch.setattr(task, "load_data", load)


@pytest.fixture
def local(tmp_path):
    rows = zip(*ROWS.values(), strict=True)
    path = tmp_path / "mine.tsv"
    path.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))
    return path


def a_run(*sets):
    stage = StageRecord(
        name="contrastive", loss="contrastive", base="owner/base", base_fingerprint="", model="", fingerprint="",
        error_against_spread=0.0, data=[{"set": name, "rows": 1} for name in sets], steps=1, seconds=1.0,
        best_step=None, history=[],
    )  # fmt: skip
    return replace(new("run", {}, seed=1, processes=1), stages=[stage])


@pytest.mark.slow
def test_mteb_reads_what_was_written(model, local, tmp_path):
    scores = evaluate(model, ["STSBenchmark", str(local)], cache=tmp_path / "cache")
    again = evaluate(model, ["STSBenchmark", str(local)], cache=tmp_path / "cache")
    assert again["STSBenchmark"].results == scores["STSBenchmark"].results  # kept ones have them too
    done = submit(model, again, tmp_path / "out", name="me/my-embedder@1a2b3c")
    assert done.tasks == ("STSBenchmark",)
    assert done.left_out == ("mine",)
    place = tmp_path / "out" / "results" / "me__my-embedder" / "1a2b3c"
    written = ["STSBenchmark.json", "model_meta.json", "run_settings.jsonl"]
    assert sorted(file.name for file in place.iterdir()) == written
    result = TaskResult.from_disk(place / "STSBenchmark.json")
    assert result.get_score() == pytest.approx(scores["STSBenchmark"].main, abs=1e-6)
    assert result.scores.keys() == {"test"}
    found = ResultCache(tmp_path / "out").load_results(tasks=["STSBenchmark"], require_model_meta=True)
    assert [one.model_name for one in found.model_results] == ["me/my-embedder"]
    meta = json.loads((place / "model_meta.json").read_text())
    assert meta["n_parameters"] == sum(one.numel() for one in model.parameters())
    assert (meta["max_tokens"], meta["embed_dim"], meta["similarity_fn_name"]) == (64, 32, "cosine")
    assert not meta["use_instructions"]
    space = {}
    exec((tmp_path / "out" / "my_embedder.py").read_text(), space)
    assert space["my_embedder"].to_dict().items() >= {"name": "me/my-embedder", "revision": "1a2b3c"}.items()
    assert "MockSTSTask" in (tmp_path / "out" / "mock_run.md").read_text()
    told = json.loads((tmp_path / "out" / "submission.json").read_text())
    assert told["tasks"]["STSBenchmark"]["zero_shot"] is None
    assert "training_datasets" in told["to_fill_in"]
    with pytest.raises(DataError, match="is not empty; nothing was written"):
        submit(model, again, tmp_path / "out", name="me/my-embedder")


def test_scores_by_other_rules_are_refused(model, local, tmp_path):
    assert check_name("me/it") == ("me/it", None)
    with pytest.raises(ConfigError, match="is no hub id; the leaderboard wants OWNER/NAME"):
        submit(model, evaluate(model, local, cache=False), tmp_path / "out", name="my-embedder")
    with pytest.raises(ConfigError, match="nothing to submit"):
        submit(model, evaluate(model, local, cache=False), tmp_path / "out", name="me/it")
    with pytest.raises(ConfigError, match="made with seed 7; mteb's own is 42"):
        submit(model, evaluate(model, local, seed=7, cache=False), tmp_path / "out", name="me/it")
    with pytest.raises(ConfigError, match="of cut texts"):
        submit(model, evaluate(model, local, cut=5, cache=False), tmp_path / "out", name="me/it")
    assert not (tmp_path / "out").exists()


def test_a_model_that_fails_mtebs_check_is_not_submitted(model, tmp_path, monkeypatch):
    scores = evaluate(model, "STSBenchmark", cache=False)
    broken = mteb.MockRunResults(
        model_name="me/it", task_results={"MockSTSTask": TaskError(task_name="MockSTSTask", exception="it broke")}
    )
    monkeypatch.setattr(mteb, "mock_run", lambda _: broken)
    with pytest.raises(ModelError, match="mock_run fails on MockSTSTask; nothing was written"):
        submit(model, scores, tmp_path / "out", name="me/it")
    assert not (tmp_path / "out").exists()


def test_what_was_trained_on_is_said_by_mtebs_names(model):
    assert trained_on(None) is None
    assert trained_on(a_run("nq", "allnli", "msmarco_passage")) == {"NQ", "MSMARCO"}
    assert trained_on(a_run("nq", "my own pairs")) is None
    for tasks in TRAINED_ON.values():
        assert all(mteb.get_task(task).metadata.name == task for task in tasks)


def test_rows_of_the_training_that_hold_a_text_of_the_task_are_told(model, local, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"anchor": TEXTS[n], "positive": f"nothing of it {n}"} for n in (0, 1)]
    rows.append({"anchor": "something else", "positive": "altogether"})
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = {"cache": tmp_path / "cache"}
    plain = evaluate(model, local, **kept)["mine"]
    told = evaluate(model, local, trained_on=[pairs], **kept)["mine"]
    assert told.main == plain.main
    assert set(told.notes) - set(plain.notes) == {
        f"training data {pairs}: 2 of 3 pairs (66.67%) share a text with the 12 of the evaluation, 2 word for word "
        "(anchor 2)"
    }


def test_the_command_writes_and_tells(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mteb, "mock_run", lambda _: mteb.MockRunResults(model_name="me/it", task_results={}))
    folder = antiphon.save(model, tmp_path / "saved")
    options = ["--tasks", "STSBenchmark", "--cache", str(tmp_path / "cache"), "--submit", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(folder), *options])
    assert end.value.code == 2
    assert "is no hub id" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(folder), *options, "--hub-name", "me/it"])
    assert end.value.code in (None, 0)
    said = capsys.readouterr().out
    assert "mteb's mock_run passed; 1 task in" in said
    assert "fill in training_datasets" in said


@pytest.mark.parametrize("name", [name for name, chosen in SETS.items() if chosen.benchmark])
def test_a_set_is_the_benchmark_of_mtebs_name(name):
    assert mteb.get_benchmark(SETS[name].benchmark).name == SETS[name].benchmark
