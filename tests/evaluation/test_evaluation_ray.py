"""Evaluation over Ray's workers: the scores of one process, also when a worker is killed; errors as they are here."""

from __future__ import annotations

import os
import signal

import evaluation_data as data
import pytest
from ray_workers import needs_ray, workers

import antiphon
from antiphon.corpus.ray_cluster import RaySettings
from antiphon.errors import ConfigError, DataError

TWO = RaySettings(workers=2)
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of what it will change
    needs_ray,
]


class Killer:
    """Kills a worker when the first task is done."""

    def __init__(self):
        self.killed, self.heard, self.steps = [], [], []

    def estimate(self, characters, seconds):
        pass

    def task(self, name, number, count):
        self.heard.append(name)
        if not self.killed and (alive := workers("ray::_Worker")):
            self.killed.append(alive[0])
            os.kill(alive[0], signal.SIGKILL)

    def progress(self, done, total):
        self.steps.append((done, total))


@pytest.mark.slow
def test_the_scores_are_those_of_one_process_though_a_worker_is_killed(cluster, tiny_base, tmp_path):
    data.everything(tmp_path)
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    tasks = [tmp_path / "alike.tsv", tmp_path / "search", tmp_path / "kinds", tmp_path / "same.tsv", "probe:geometry"]
    alone = antiphon.evaluate(model, tasks, cache=False)
    killer = Killer()
    found = antiphon.evaluate(model, tasks, cache=False, engine=TWO, listener=killer, out=tmp_path / "run")
    assert killer.killed
    assert sorted(killer.heard) == sorted(alone)
    assert killer.steps[-1][0] == max(done for done, _ in killer.steps)
    assert {name: score.main for name, score in found.items()} == {name: score.main for name, score in alone.items()}
    assert list(found) == list(alone)
    assert found.revision == alone.revision

    bad = tmp_path / "bad.tsv"
    bad.write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\tx\n")
    with pytest.raises(DataError, match="'score' is 'x'"):
        antiphon.evaluate(model, [tmp_path / "alike.tsv", bad], cache=False, engine=TWO)
    with pytest.raises(ConfigError, match="9 workers are wanted where Ray has 2 cores"):
        antiphon.evaluate(model, tasks, cache=False, engine=RaySettings(workers=9))
