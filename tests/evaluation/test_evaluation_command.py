"""The evaluate command, in this process and over two ranks; what is told on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import evaluation_data as data
import pytest
from hypothesis import given
from hypothesis import strategies as st

import antiphon
from antiphon.evaluation import evaluate, load_scores
from antiphon.evaluation.ranks import shares
from antiphon.evaluation.selection import select


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    data.everything(root)
    return root


def test_a_language_model_is_evaluated_in_a_template(tiny_base, files, tmp_path, run):
    template = ("--template", "echo-rewrite", "--max-tokens", 64)
    tasks = f"{files / 'alike.tsv'},{files / 'search'}"
    code, out, err = run("evaluate", tiny_base, *template, "--tasks", tasks, "--tasks", "probe:geometry", "--limit", 12,
                         "--label", "tiny echo", "--cache", tmp_path / "cache", "--out", tmp_path / "run")  # fmt: skip
    assert code == 0, err
    scores = load_scores(tmp_path / "run")
    assert list(scores) == ["alike", "search", "probe:geometry"]
    assert scores.label == "tiny echo"
    for name in ("alike", "search"):
        assert f"{100 * scores[name].main:.2f}" in out
    assert f"{100 * scores.average:.2f}" in out
    assert "isotropy" in out
    assert "alike (1 of 3)" in err
    assert str(tmp_path / "run") in err


def test_what_the_user_can_mend_ends_with_2_and_no_traceback(tiny_base, files, tmp_path, run):
    options = ("--template", "echo", "--max-tokens", 64, "--cache", tmp_path / "cache", "--tasks", files / "alike.tsv")
    code, _, err = run("evaluate", tiny_base, *options)
    assert code == 2
    assert "There is no instruction for the task 'alike'" in err
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"alike": "Find the same"}))
    assert run("evaluate", tiny_base, *options, "--instructions", words)[0] == 0
    code, _, err = run("evaluate", tiny_base, "--tasks", "STSBenchmrk", "--max-tokens", 64)
    assert code == 2
    assert "Did you mean" in err
    assert "Traceback" not in err


class Heard:
    def __init__(self):
        self.estimates, self.tasks, self.steps = [], [], []

    def estimate(self, characters, seconds):
        self.estimates.append((characters, seconds))

    def task(self, name, number, count):
        self.tasks.append((name, number, count))

    def progress(self, done, total):
        self.steps.append((done, total))


def test_a_listener_hears_an_estimate_and_progress_to_the_end(tiny_base, files, tmp_path):
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    tasks = [files / "alike.tsv", files / "search", files / "kinds"]
    for _ in range(2):  # the second time from the cache
        heard = Heard()
        evaluate(model, tasks, cache=tmp_path, listener=heard)
        ((characters, seconds),) = heard.estimates
        assert characters == sum(task.size() for task in select(tasks))
        assert seconds > 0
        assert heard.tasks == [("alike", 1, 3), ("search", 2, 3), ("kinds", 3, 3)]
        assert heard.steps[-1] == (characters, characters)
        assert all(a[0] <= b[0] for a, b in pairwise(heard.steps))


@pytest.mark.slow
def test_mtebs_tasks_know_their_size():
    sizes = {task.name: task.size() for task in select("mteb-eng-v2")}
    assert sizes["STSBenchmark"] > 100_000
    assert sizes["ClimateFEVERHardNegatives"] > 10_000_000


@given(st.lists(st.floats(0, 1e6), max_size=30), st.integers(1, 6))
def test_every_task_goes_to_one_rank_and_none_has_much_more_than_another(sizes, ranks):
    given_out = shares(sizes, ranks)
    assert sorted(item for items in given_out for item in items) == list(range(len(sizes)))
    loads = [sum(sizes[item] for item in items) for items in given_out]
    assert max(loads) - min(loads) <= max(sizes, default=0.0) + 1e-6


SCRIPT = r"""
import json, sys, antiphon
from antiphon.errors import DataError
base, out, cache, *tasks = sys.argv[1:]
model = antiphon.build(base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
try:
    scores = antiphon.evaluate(model, tasks, cache=cache, out=out)
    said = {name: score.main for name, score in scores.items()}
except DataError as error:
    said = str(error)
sys.stdout.write(json.dumps(said) + "\n")  # at once: print writes a line's end apart, and ranks share a pipe
"""


def over_two_ranks(tmp_path, programs, *arguments):
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    python = str(programs / "python")
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [python, "-P", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", '"'))]


@pytest.mark.slow
def test_two_ranks_share_the_tasks_and_both_have_all_scores(tiny_base, files, tmp_path, programs):
    tasks = [files / "alike.tsv", files / "search", files / "kinds", files / "same.tsv"]
    found = over_two_ranks(tmp_path, programs, tiny_base, tmp_path / "run", tmp_path / "cache", *tasks)
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    alone = evaluate(model, tasks, cache=False)
    assert found == [{name: score.main for name, score in alone.items()}] * 2
    assert load_scores(tmp_path / "run").revision == alone.revision
    bad = data.tsv(tmp_path / "bad.tsv", [("sentence1", "sentence2", "score"), ("a", "b", 1), ("c", "d", 2)])
    good = bad.read_text()
    bad.write_text(good[:-2] + "x\n")
    told = over_two_ranks(
        tmp_path, programs, tiny_base, tmp_path / "other", tmp_path / "cache", files / "alike.tsv", bad
    )
    assert len(told) == 2
    assert all("'score' is 'x'" in words for words in told)
