"""The engine ray: the rows of the local engine, also when a worker is killed; and what goes wrong is a sentence."""

from __future__ import annotations

import os
import signal
import sys
import types
from pathlib import Path

import pytest
from embedded_texts import TEXTS, embedder, texts_file
from ray_workers import needs_ray, workers

import antiphon
from antiphon.corpus.index import MANIFEST
from antiphon.corpus.job import CorpusJob, Work
from antiphon.corpus.ray_cluster import RaySettings, raised_as_ours
from antiphon.data.skipped import Skipped
from antiphon.data.sources import open_source
from antiphon.errors import ConfigError, DataError, ModelError

TWO = RaySettings(workers=2)
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of what it will change


@pytest.fixture(scope="module")
def model(tiny_base):
    return embedder(tiny_base)


@pytest.fixture
def source(tmp_path):
    return texts_file(tmp_path)


def manifest(folder: Path) -> str:
    return (folder / MANIFEST).read_text()


def test_the_work_of_others_is_the_lists_that_are_embedded_here(source):
    job = CorpusJob.of(open_source(source), 5, Skipped())
    shards = list(job.chunks)
    assert list(Work(job.source, 5, job.total).lists()) == shards
    work = Work(job.source, 5, job.total, held={0, 2}, calibrates=True)
    assert work.shards == len(shards)
    assert list(work.lists()) == [
        job.calibration(shards[0]),
        *(shards[n] for n in range(len(shards)) if n not in (0, 2)),
    ]


def test_an_engine_that_cannot_be_is_a_sentence(model, source, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="There is no engine 'spark'"):
        antiphon.embed(model, source, tmp_path / "out", engine="spark")
    with pytest.raises(ConfigError, match="is read only once, and Ray's workers read it by themselves"):
        antiphon.embed(model, iter(TEXTS), tmp_path / "out", engine="ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray Data: pip install 'antiphon\[scale\]'"):
        antiphon.embed(model, source, tmp_path / "other", engine="ray")


def test_a_ray_that_does_not_start_is_a_sentence(model, source, tmp_path, monkeypatch):
    """On a busy machine Ray raises the bare Exception."""

    def late(*given, **named):
        raise Exception("The current node timed out during startup.")

    ray = types.ModuleType("ray")
    ray.is_initialized, ray.init, ray.data = lambda: False, late, types.ModuleType("ray.data")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    for address, words in (
        (None, "here .*timed out during startup.*less busy"),
        ("auto", "at auto .*check the address"),
    ):
        with pytest.raises(ConfigError, match=words):
            antiphon.embed(model, source, tmp_path / "out", engine=RaySettings(address=address))


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vectors", "int8"])
def test_the_rows_are_those_of_the_local_engine_though_a_worker_is_killed(cluster, model, source, tmp_path, name):
    options = {"shard_size": 3, "precision": "int8" if name == "int8" else "float32"}
    wanted = antiphon.embed(model, source, tmp_path / "local" / name, **options)
    killed: list[int] = []

    def kill(done: int, total: int | None) -> None:
        if not killed and (alive := workers("MapWorker")):
            killed.append(alive[0])
            os.kill(alive[0], signal.SIGKILL)

    out = antiphon.embed(model, source, tmp_path / "ray" / name, engine=TWO, on_progress=kill, **options)
    assert killed
    assert manifest(out) == manifest(wanted)
    antiphon.embed(model, source, out, verify=True, **options)


class Stopped(Exception):
    """A run that dies in the middle."""


@needs_ray
@pytest.mark.slow
def test_one_engine_goes_on_where_the_other_died(cluster, model, source, tmp_path):
    wanted = antiphon.embed(model, source, tmp_path / "whole", shard_size=3)

    def stop(done: int, total: int | None) -> None:
        if done >= 6:
            raise Stopped

    for first, second in (("local", TWO), (TWO, "local")):
        out = tmp_path / f"from-{first}".replace(" ", "")
        with pytest.raises(Stopped):
            antiphon.embed(model, source, out, shard_size=3, engine=first, on_progress=stop)
        (out / "part-00000.parquet").unlink()
        antiphon.embed(model, source, out, shard_size=3, engine=second)
        assert manifest(out) == manifest(wanted)
    antiphon.embed(model, source, out, shard_size=3, engine=TWO)  # there is nothing left to do


@needs_ray
@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_a_sentence_and_shards_stay(cluster, model, tiny_base, source, tmp_path):
    with pytest.raises(ConfigError, match="9 workers are wanted where Ray has 2 cores"):
        antiphon.embed(model, source, tmp_path / "out", engine=RaySettings(workers=9))
    broken = antiphon.build(tiny_base, max_tokens=64, dtype="float32", device="cpu")
    broken[0].model.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(ModelError) as here:
        antiphon.embed(broken, source, tmp_path / "nan-local", shard_size=3)
    with pytest.raises(ModelError) as there:
        antiphon.embed(broken, source, tmp_path / "nan", shard_size=3, engine=TWO)
    assert str(here.value) == str(there.value)

    surprises = {
        "hungry": (Surprise(eval, ("(_ for _ in ()).throw(MemoryError('no room'))",)), "Ray worker ran out of memory"),
        "deadly": (Surprise(os._exit, (1,)), "Ray could not go on, after .*what is written stays"),
    }
    for name, (surprise, words) in surprises.items():
        surprising = antiphon.build(tiny_base, max_tokens=64, dtype="float32", device="cpu")
        surprising.surprise = surprise
        with pytest.raises(DataError, match=words):
            antiphon.embed(surprising, source, tmp_path / name, shard_size=3, engine=TWO)


@needs_ray
def test_what_ray_says_of_memory_and_disks_is_a_sentence():
    from ray.exceptions import OutOfDiskError, OutOfMemoryError

    for error, words in (
        (OutOfMemoryError("too much"), "OutOfMemoryError: too much.*take fewer workers"),
        (OutOfDiskError("local disk is full"), "OutOfDiskError: .*make room where Ray keeps"),
    ):
        with pytest.raises(DataError, match=words), raised_as_ours():
            raise error


class Surprise:
    """What does something when a worker unpickles it."""

    def __init__(self, *what: object) -> None:
        self.what = what

    def __reduce__(self):
        return self.what
