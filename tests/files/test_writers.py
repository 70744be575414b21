"""Every verb that writes: one writer a folder, files of the user's survive, torn caches and shards are made again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import evaluation_data as data
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import antiphon
from antiphon.cli import app, report
from antiphon.errors import AntiphonError, ConfigError, DataError
from antiphon.evaluation.vector_store import VectorStore
from antiphon.files import held, held_file

pytestmark = pytest.mark.usefixtures("warm_checks")

Writer = Callable[[Path], object]


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=64, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return antiphon.save(model, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def inputs(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    (root / "texts.txt").write_text("\n".join(data.TEXTS[:12]) + "\n")
    data.jsonl(root / "pairs.jsonl", [{"query": text[:30], "positive": text} for text in data.TEXTS[:12]])
    data.sts(root / "sts.tsv")
    antiphon.evaluate(model, [root / "sts.tsv"], out=root / "run", cache=False)
    return root


@pytest.fixture(scope="module")
def writers(model, saved, inputs) -> dict[str, Writer]:
    recipe = {
        "name": "tiny",
        "model": {"base": str(saved)},
        "data": {"sets": [{"name": "pairs", "source": str(inputs / "pairs.jsonl")}]},
        "stage": [{"name": "one", "loss": "contrastive", "steps": 1, "batch_size": 4}],
    }
    mine = ["mine", str(saved), str(inputs / "pairs.jsonl"), "--force", "--out"]

    def run(arguments: list[str]) -> None:
        done = CliRunner().invoke(app, arguments)
        if done.exception is not None:
            raise done.exception

    return {
        "embed": lambda out: antiphon.embed(model, inputs / "texts.txt", out),
        "evaluate": lambda out: antiphon.evaluate(model, [inputs / "sts.tsv"], out=out, cache=False),
        "compare": lambda out: report.write_comparison(antiphon.compare([inputs / "run"]), out),
        "export": lambda out: antiphon.export(model, to="portable", out=out),
        "save": lambda out: antiphon.save(model, out),
        "train": lambda out: antiphon.train({**recipe, "out": str(out)}, resume=True),
        "mine": lambda out: run([*mine, str(out / "mined.jsonl")]),
    }


SLOW_EXPORT = pytest.param("export", marks=pytest.mark.slow)
VERBS = ("embed", "evaluate", "compare", "export", "save", "train", "mine")


@pytest.mark.parametrize("second", VERBS)
def test_of_two_writers_the_second_is_told_who_the_first_is(second, writers, tmp_path):
    """Whatever the first one is, it holds the folder as this test does: all pairs of verbs are these."""
    out = tmp_path / "out"
    first = held_file(out / "mined.jsonl", "mine") if second == "mine" else held(out, "embed")
    name = "mine" if second == "mine" else "embed"
    with first:
        with pytest.raises(AntiphonError, match=rf"is being written by antiphon {name} \(process \d+ on .*, since "):
            writers[second](out)
        assert all(path.name.startswith(".antiphon") for path in out.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_its_own_name(verb, writers, tmp_path, monkeypatch):
    told: list[str] = []

    def listening(file: Path, name: str, holder: str, kind: type[AntiphonError]) -> object:
        told.append(holder)
        raise Stopped

    monkeypatch.setattr("antiphon.files.folders.locked", listening)
    with pytest.raises(Stopped):
        writers[verb](tmp_path / "out")
    assert told == [verb]


class Stopped(Exception):
    """Ends a verb when it takes its lock."""


@pytest.mark.parametrize("verb", ["embed", "evaluate", "compare", "train", "mine"])
def test_what_a_user_keeps_in_a_folder_survives(verb, writers, tmp_path):
    (tmp_path / "far").mkdir()
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "far")
    writers[verb](out)
    (out / "notes.md").write_text("mine")
    (out / "plots").mkdir()
    (out / "plots" / "one.png").write_text("mine")
    (out / "link").symlink_to(tmp_path / "nowhere")
    (out / "plots" / "back").symlink_to(out)
    writers[verb](out)
    if verb == "embed":
        (out / "part-00000.parquet").unlink()
        writers[verb](out)
    assert (out / "notes.md").read_text() == (out / "plots" / "one.png").read_text() == "mine"
    assert out.is_symlink()
    assert (out / "link").is_symlink()
    assert (out / "plots" / "back").is_symlink()
    assert not list(out.glob(".antiphon*"))


@pytest.mark.parametrize("verb", ["embed", "evaluate", "compare", "export", "save", "train"])
def test_a_folder_of_others_is_refused_and_untouched(verb, writers, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AntiphonError, match=r"(?i)nothing was written"):
        writers[verb](tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("verb", ["embed", "evaluate", "compare", SLOW_EXPORT, "save", "train", "mine"])
def test_what_a_killed_run_left_is_gone_after_the_next(verb, writers, tmp_path):
    out = tmp_path / "out"
    for name in ("new/files", "trial/model"):
        (out / f".antiphon-{name}").mkdir(parents=True)
        (out / f".antiphon-{name}" / "half").write_text("half")
    (out / ".antiphon-0123456789abcdef.partial").write_text("half")
    (out / ".antiphon.lock").write_text("{}")
    writers[verb](out)
    left = {path.name for path in out.iterdir() if path.name.startswith(".antiphon")}
    # mine holds one file of a folder, in which another verb may be at work
    assert left == ({".antiphon-new", ".antiphon-trial", ".antiphon.lock"} if verb == "mine" else set())


def test_a_torn_score_is_made_again_with_a_line(model, inputs, tmp_path, caplog):
    kept = antiphon.evaluate(model, [inputs / "sts.tsv"], cache=tmp_path)
    (file,) = tmp_path.glob("scores/*/*.json")
    for torn in (b"", file.read_bytes()[:40], b"[]", b'{"sample": null}', b"\xff\xfe"):
        file.write_bytes(torn)
        caplog.clear()
        again = antiphon.evaluate(model, [inputs / "sts.tsv"], cache=tmp_path)
        assert f"{file} is no kept score" in caplog.text
        assert again["sts"].main == kept["sts"].main


def test_torn_vectors_are_made_again_with_a_line(model, inputs, tmp_path, caplog):
    kept = antiphon.evaluate(model, [inputs / "sts.tsv"], cache=tmp_path)
    (store,) = tmp_path.glob("vectors/*.sqlite")
    (score,) = tmp_path.glob("scores/*/*.json")
    whole = store.read_bytes()
    for torn in (b"no database at all, and long enough to be one" * 40, whole[:5000], whole[:4096] + b"x" * 8192):
        store.write_bytes(torn)
        score.unlink()
        caplog.clear()
        again = antiphon.evaluate(model, [inputs / "sts.tsv"], cache=tmp_path)
        assert f"{store} is torn" in caplog.text
        assert again["sts"].main == kept["sts"].main


def test_vectors_of_another_length_or_that_are_no_numbers_are_passed_over(tmp_path, caplog):
    store = VectorStore(tmp_path / "v.sqlite")
    vectors = {bytes([n]): np.full(4, n, dtype=np.float32) for n in range(3)}
    store.put({**vectors, b"nan": np.full(4, np.nan, dtype=np.float32)})
    with sqlite3.connect(tmp_path / "v.sqlite") as database:
        database.execute("INSERT INTO vectors VALUES (?, ?)", (b"short", b"abc"))
        database.execute("INSERT INTO vectors VALUES (?, ?)", (b"text", "abc"))
    database.close()
    found = store.get([*vectors, b"nan", b"short", b"text", b"none"])
    assert {key: list(vector) for key, vector in found.items()} == {key: list(vectors[key]) for key in vectors}
    assert "holds 3 broken vectors" in caplog.text
    store.close()


def test_caches_that_cannot_be_written_are_a_sentence(model, inputs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"vectors in .* could not be kept .*name another cache"):
        antiphon.evaluate(model, [inputs / "sts.tsv"], cache=tmp_path / "file")


def test_a_shard_that_is_not_what_was_written_is_found_and_made_again(model, inputs, tmp_path, caplog):
    out = antiphon.embed(model, inputs / "texts.txt", tmp_path / "out", shard_size=4)
    shards = sorted(out.glob("*.parquet"))
    whole = [shard.read_bytes() for shard in shards]
    assert pq.read_table(shards[0]).num_rows == 4
    flipped = bytearray(whole[0])
    flipped[len(flipped) // 2] ^= 1
    for number, content, seen_at_once in ((0, bytes(flipped), False), (1, whole[0], True), (2, whole[2][:-1], True)):
        shards[number].write_bytes(content)
        with pytest.raises(DataError, match=rf"part-0000{number}\.parquet \(4 rows\) .*; run the same embed"):
            antiphon.search(out, "a query", model=model, verify=not seen_at_once)
        caplog.clear()
        antiphon.embed(model, inputs / "texts.txt", out, shard_size=4)
        assert f"part-0000{number}.parquet" in caplog.text
        assert "is made again" in caplog.text
        assert [shard.read_bytes() for shard in shards] == whole
    assert antiphon.search(out, "a query", model=model, verify=True)
    with pytest.raises(ConfigError, match="nothing to verify"):
        antiphon.search(inputs / "texts.txt", "a query", model=model, verify=True)


def test_force_says_what_it_replaces_and_takes_nothing_else(model, inputs, tmp_path, caplog):
    out = antiphon.embed(model, inputs / "texts.txt", tmp_path / "out", shard_size=4)
    (out / "part-00009.parquet").write_text("mine")
    with pytest.raises(DataError, match=r"has part-00009\.parquet in it, which _embed\.json does not list"):
        antiphon.embed(model, inputs / "texts.txt", out, shard_size=5, force=True)
    (out / "part-00009.parquet").rename(out / "elsewhere.parquet")
    antiphon.embed(model, inputs / "texts.txt", out, shard_size=6, force=True)
    assert "The 3 shards (12 rows) in" in caplog.text
    assert (out / "elsewhere.parquet").read_text() == "mine"
    assert len(list(out.glob("part-*.parquet"))) == 2


def test_a_manifest_of_the_first_release_is_read(model, inputs, tmp_path):
    out = antiphon.embed(model, inputs / "texts.txt", tmp_path / "out", shard_size=4)
    manifest = json.loads((out / "_embed.json").read_text())
    for shard in manifest["shards"]:
        del shard["bytes"], shard["file_sha256"]
    (out / "_embed.json").write_text(json.dumps(manifest))
    before = (out / "part-00000.parquet").stat().st_mtime_ns
    antiphon.embed(model, inputs / "texts.txt", out, shard_size=4)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == before


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A folder that nobody writes to, root neither: a file system of its own, mounted so."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_is_read_only_is_a_sentence(verb, writers, read_only):
    with pytest.raises(AntiphonError, match=r"could not be written \(Read-only file system\)"):
        writers[verb](read_only / "out")


@pytest.mark.parametrize("verb", ["embed", "evaluate", "compare", SLOW_EXPORT, "save"])
def test_a_disk_that_is_full_is_a_sentence_and_nothing_is_left(verb, writers, tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")

    def refuse(*arguments: object) -> None:
        raise full

    monkeypatch.setattr("antiphon.files.folders._to_disk", refuse)
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(AntiphonError, match=r"could not be written \(No space left on device\)"):
        writers[verb](tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
