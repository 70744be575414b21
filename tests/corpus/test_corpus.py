"""Embedding to a folder: the same vectors as the model's own, to the same bytes however often the run dies."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import antiphon
from antiphon.corpus.embed import embed
from antiphon.corpus.searching import search
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.model.fingerprint import fingerprint
from antiphon.model.parity import compare, unlike_texts

TEXTS = unlike_texts()[:20]
SHARD = 6


@pytest.fixture(scope="module")
def embedder_folder(tiny_base, tmp_path_factory):
    model = antiphon.build(tiny_base, max_tokens=128, dtype="float32", device="cpu")
    return antiphon.save(model, tmp_path_factory.mktemp("embedders") / "echo")


@pytest.fixture(scope="module")
def embedder(embedder_folder):
    return antiphon.load(embedder_folder, device="cpu")


@pytest.fixture(scope="module")
def other(tiny_base):
    return antiphon.build(tiny_base, "eol", pooling="last", max_tokens=128, dtype="float32", device="cpu")


def write_source(path: Path, texts=TEXTS) -> Path:
    path.write_text("".join(json.dumps({"id": f"t{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source.jsonl")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class Stopped(Exception):
    """A run that dies in the middle."""


def stop_after(texts: int):
    def stop(done: int, total: int | None) -> None:
        if done >= texts:
            raise Stopped

    return stop


def test_shards_hold_ids_texts_and_the_models_unit_vectors(embedder, source, tmp_path):
    told = []
    out = embed(embedder, source, tmp_path / "out", shard_size=SHARD, on_progress=lambda *at: told.append(at))
    manifest = json.loads((out / "_embed.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [6, 6, 6, 2]
    assert manifest["complete"] is True
    assert (manifest["rows"], manifest["side"], manifest["shard_size"]) == (20, "document", SHARD)
    assert manifest["model"] == fingerprint(embedder)
    assert sorted(path.name for path in out.iterdir()) == ["_embed.json", *(f"part-{n:05d}.parquet" for n in range(4))]
    table = pq.read_table(sorted(out.glob("*.parquet")))
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<")
    assert table["id"].to_pylist() == [f"t{n}" for n in range(20)]
    assert table["text"].to_pylist() == TEXTS
    vectors = np.array(table["vector"].to_pylist(), dtype=np.float32)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert told[-1] == (20, 20)
    many = np.concatenate([vectors, vectors[::-1]])
    own = embedder.encode_document(TEXTS)
    assert compare(many, np.concatenate([own, own[::-1]])).equal


def test_an_interrupted_run_goes_on_to_the_same_bytes(embedder, source, tmp_path):
    whole = embed(embedder, source, tmp_path / "whole", shard_size=SHARD)
    for stop in (1, SHARD, 2 * SHARD, 20):
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(Stopped):
            embed(embedder, source, out, shard_size=SHARD, on_progress=stop_after(stop))
        assert not json.loads((out / "_embed.json").read_text())["complete"]
        embed(embedder, source, out, shard_size=SHARD)
        assert hashes(out) == hashes(whole)


KILLED = """
import os, signal, sys, antiphon
model = antiphon.load(sys.argv[1], device="cpu")
def kill(done, total):
    if done >= 9:
        open(os.path.join(sys.argv[3], ".antiphon-0123456789abcdef.partial"), "w").write("half")
        os.kill(os.getpid(), signal.SIGKILL)
antiphon.embed(model, sys.argv[2], sys.argv[3], shard_size=6, batch_size=1, on_progress=kill)
"""


def run(programs: Path, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(programs / "python"), "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_killed_process_leaves_whole_shards_and_goes_on_to_the_same_bytes(
    embedder_folder, source, tmp_path, programs
):
    loaded = antiphon.load(embedder_folder, device="cpu")  # the manifest says which folder the model came from
    whole = embed(loaded, source, tmp_path / "whole", shard_size=SHARD, batch_size=1)
    out = tmp_path / "killed"
    died = run(programs, KILLED, embedder_folder, source, out)
    assert died.returncode == -signal.SIGKILL, died.stderr
    left = [".antiphon-0123456789abcdef.partial", ".antiphon.lock"]
    assert sorted(hashes(out)) == [*left, "_embed.json", "part-00000.parquet"]
    embed(loaded, source, out, shard_size=SHARD, batch_size=1)
    assert hashes(out) == hashes(whole)


FULL = """
import resource, sys, antiphon
from antiphon.errors import DataError
model = antiphon.load(sys.argv[1], device="cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    antiphon.embed(model, sys.argv[2], sys.argv[3], shard_size=6, batch_size=1)
except DataError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_one_sentence_and_the_shards_before_stay(embedder_folder, tmp_path, programs):
    loaded = antiphon.load(embedder_folder, device="cpu")  # the manifest says which folder the model came from
    source = write_source(tmp_path / "source.jsonl", [*TEXTS[:SHARD], *(text * 500 for text in TEXTS[:SHARD])])
    whole = embed(loaded, source, tmp_path / "whole", shard_size=SHARD, batch_size=1)
    room = (whole / "part-00000.parquet").stat().st_size + 500
    out = tmp_path / "full"
    told = run(programs, FULL, embedder_folder, source, out, room)
    assert "part-00001.parquet could not be written" in told.stdout, told.stderr
    assert "the 1 shards before are whole. Make room" in told.stdout
    assert sorted(hashes(out)) == ["_embed.json", "part-00000.parquet"]
    embed(loaded, source, out, shard_size=SHARD, batch_size=1)
    assert hashes(out) == hashes(whole)


def test_a_grown_source_is_gone_on_with_and_a_lost_shard_is_made_again(embedder, source, tmp_path):
    whole = embed(embedder, source, tmp_path / "whole", shard_size=SHARD)
    out = embed(embedder, write_source(tmp_path / "short.jsonl", TEXTS[:8]), tmp_path / "out", shard_size=SHARD)
    embed(embedder, source, out, shard_size=SHARD)
    assert hashes(out) == hashes(whole)
    (out / "part-00001.parquet").unlink()
    (out / "part-00002.parquet").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"part-00001\.parquet \(6 rows\) is missing"):
        search(out, "a query", model=embedder)
    embed(embedder, source, out, shard_size=SHARD)
    assert hashes(out) == hashes(whole)


@pytest.mark.parametrize(
    "texts", [["another", *TEXTS[1:]], [*TEXTS[:13], "another", *TEXTS[14:]], TEXTS[:3], TEXTS[:12]]
)
def test_another_source_is_refused_and_forced(texts, embedder, source, tmp_path):
    out = embed(embedder, source, tmp_path / "out", shard_size=SHARD)
    before = hashes(out)
    changed = write_source(tmp_path / "changed.jsonl", texts)
    with pytest.raises(DataError, match=r"was made from another source: .*--force"):
        embed(embedder, changed, out, shard_size=SHARD)
    assert hashes(out) == before
    embed(embedder, changed, out, shard_size=SHARD, force=True)
    assert hashes(out) == hashes(embed(embedder, changed, tmp_path / "anew", shard_size=SHARD))


def test_another_model_or_setting_is_refused_and_nothing_is_touched(embedder, other, source, tmp_path):
    out = embed(embedder, source, tmp_path / "out", shard_size=SHARD)
    before = hashes(out)
    with pytest.raises(DataError, match=r"template is 'echo-rewrite' there and 'eol' here; .* start anew with --force"):
        embed(other, source, out, shard_size=SHARD)
    with pytest.raises(DataError, match="was made with shard_size 6 and this run has 7"):
        embed(embedder, source, out, shard_size=7)
    with pytest.raises(DataError, match="was made with side document and this run has query"):
        embed(embedder, source, out, shard_size=SHARD, side="query")
    with pytest.raises(DataError, match=r"was embedded by another model .*search with the model that made it"):
        search(out, "a query", model=other)
    assert hashes(out) == before


@pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", "_embed.json.bak"])
@pytest.mark.parametrize("force", [False, True])
def test_files_of_others_are_never_touched(name, force, embedder, source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    with pytest.raises(DataError, match=f"no embeddings of antiphon .{name}.*Nothing was written"):
        embed(embedder, source, out, force=force)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "precious")]
    with pytest.raises(DataError, match="is a file; name a folder"):
        embed(embedder, source, out / name, force=force)


def test_a_broken_manifest_is_told(embedder, source, tmp_path):
    out = embed(embedder, source, tmp_path / "out")
    for content in ("", "[]", '{"version": 99}', '{"version": 1}'):
        (out / "_embed.json").write_text(content)
        with pytest.raises(DataError, match=r"embed\.json is no manifest of embeddings .*--force"):
            embed(embedder, source, out)
    embed(embedder, source, out, force=True)
    assert len(search(out, "a query", model=embedder)) == 10


def test_a_bad_source_or_setting_leaves_nothing_behind(embedder, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"text": ""}\n')
    with pytest.raises(DataError, match="line 2: 'text' has no text"):
        embed(embedder, bad, tmp_path / "out")
    with pytest.raises(ConfigError, match="no side 'both'"):
        embed(embedder, bad, tmp_path / "out", side="both")
    with pytest.raises(ConfigError, match="shard_size is 0"):
        embed(embedder, bad, tmp_path / "out", shard_size=0)
    assert not (tmp_path / "out").exists()


def test_a_vector_that_is_no_number_is_told_with_its_text(tiny_base, source, tmp_path):
    model = antiphon.build(tiny_base, max_tokens=128, dtype="float32", device="cpu")
    with torch.no_grad():
        model[0].model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match=r"The vector of '.+' is not finite in float32"):
        embed(model, source, tmp_path / "out")


def test_the_fingerprint_is_the_models_content(embedder, embedder_folder, other, tiny_base):
    assert fingerprint(embedder) == fingerprint(antiphon.load(embedder_folder, device="cpu"))
    assert fingerprint(embedder) != fingerprint(other)
    changed = antiphon.build(tiny_base, max_tokens=128, dtype="float32", device="cpu")
    assert fingerprint(changed) == fingerprint(embedder)
    before = fingerprint(changed)
    changed.encode(["a text", "a longer text"])
    assert fingerprint(changed) == before
    with torch.no_grad():
        changed[0].model.norm.weight[0] += 1e-3
    assert fingerprint(changed) != before


def test_search_finds_the_same_in_a_folder_and_in_the_source(embedder, source, tmp_path):
    out = embed(embedder, source, tmp_path / "out", shard_size=SHARD)
    stored = search(out, TEXTS[4], model=embedder, top=5)
    assert stored[0].text == TEXTS[4]
    assert [hit.id for hit in stored] == [hit.id for hit in search(source, TEXTS[4], model=embedder, top=5)]
    assert [hit.score for hit in stored] == sorted((hit.score for hit in stored), reverse=True)
    cosines = embedder.encode_document(TEXTS, normalize_embeddings=True) @ embedder.encode_query(
        TEXTS[4], normalize_embeddings=True
    )
    assert [hit.id for hit in stored] == [f"t{n}" for n in np.argsort(-cosines, kind="stable")[:5]]
    assert len(search(out, "a query", model=embedder, top=1000)) == 20


def test_of_equal_texts_the_earlier_comes_first(embedder, tmp_path):
    source = write_source(tmp_path / "same.jsonl", [TEXTS[0], TEXTS[3], *[TEXTS[7]] * 9])
    out = embed(embedder, source, tmp_path / "out", shard_size=4)
    assert [hit.id for hit in search(out, TEXTS[7], model=embedder, top=4)] == ["t2", "t3", "t4", "t5"]


def test_search_tells_what_cannot_be_searched(embedder, source, tmp_path, caplog):
    with pytest.raises(ConfigError, match="top is 0"):
        search(source, "a query", model=embedder, top=0)
    with pytest.raises(DataError, match="The query is ' ', which has no words"):
        search(source, " ", model=embedder)
    with pytest.raises(DataError, match=r"holds no _embed\.json"):
        search(tmp_path, "a query", model=embedder)
    with pytest.raises(Stopped):
        embed(embedder, source, tmp_path / "out", shard_size=SHARD, on_progress=stop_after(SHARD + 1))
    with pytest.raises(ConfigError, match="leave the field out"):
        search(tmp_path / "out", "a query", model=embedder, field="text")
    with caplog.at_level(logging.WARNING):
        assert len(search(tmp_path / "out", "a query", model=embedder)) == SHARD
    assert "only its first 6 texts are searched" in caplog.text


def test_a_folder_of_vectors_says_what_made_it_and_needs_no_model(tiny_base, source, tmp_path):
    options = {"max_tokens": 128, "dtype": "float32", "device": "cpu"}
    model = antiphon.build(tiny_base, "echo", layers=1, prompts={"query": "Find the page"}, **options)
    folder = antiphon.embed(model, source, tmp_path / "vectors")
    said = json.loads((folder / "_embed.json").read_text(encoding="utf-8"))["origin"]
    assert (said["base"], said["layers"], said["pooling"]) == (str(tiny_base), 1, "mean")
    assert (said["prompts"], said["max_tokens"]) == ({"query": "Find the page"}, 128)
    assert antiphon.search(folder, TEXTS[0]) == antiphon.search(folder, TEXTS[0], model=model)
    shorter = antiphon.build(tiny_base, "echo", layers=1, prompts={"query": "Find it"}, **{**options, "max_tokens": 64})
    with pytest.raises(DataError, match=r"max_tokens is 128 there and 64 here; prompts is .*Find the page"):
        search(folder, "a query", model=shorter)
    with pytest.raises(DataError, match="max_tokens is 128 there and 64 here"):
        embed(shorter, source, folder)


def test_a_folder_whose_model_is_gone_says_so(tiny_base, source, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    folder = antiphon.embed(antiphon.build(base, max_tokens=128), source, tmp_path / "vectors")
    shutil.rmtree(base)
    with pytest.raises(DataError, match="cannot be opened"):
        search(folder, "a query")
    with pytest.raises(ConfigError, match="does not say which model to take"):
        search(source, "a query")
