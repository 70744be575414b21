"""Parquet shards and Lance tables hold the same rows, in every precision, whenever a run dies."""

from __future__ import annotations

import importlib.util
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedded_texts import TEXTS, embedder, texts_file
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon
from antiphon.corpus.codec import PRECISIONS, Codec, Ranges, cut
from antiphon.corpus.index import MANIFEST, Index, open_index
from antiphon.errors import ConfigError, DataError
from antiphon.model.parity import encode

lance = pytest.mark.skipif(importlib.util.find_spec("lancedb") is None, reason="needs the extra antiphon[scale]")
STORES = ["vectors", pytest.param("vectors.lance", marks=lance)]


@pytest.fixture(scope="module")
def model(tiny_base):
    return embedder(tiny_base)


@pytest.fixture
def source(tmp_path):
    return texts_file(tmp_path)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(folder):
    """Every row of a folder of vectors, and its vector."""
    records, vectors = [], []
    for some, block in open_index(folder).blocks(verify=True):
        records += [(one.id, one.text, dict(one.fields)) for one in some]
        vectors.append(block)
    return records, np.concatenate(vectors)


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_vectors_are_read_back_as_near_as_the_precision_allows(model, source, tmp_path, name, precision):
    folder = antiphon.embed(model, source, tmp_path / name, precision=precision, truncate_dim=16, shard_size=9)
    records, vectors = rows(folder)
    assert records == [(f"t{n}", text, {"year": 2000 + n}) for n, text in enumerate(TEXTS)]
    wanted = unit(encode(model, TEXTS, side="document")[:, :16])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    if precision == "binary":
        np.testing.assert_allclose(vectors, np.where(wanted > 0, 0.25, -0.25), atol=1e-6)
    else:
        steps = (wanted.max(axis=0) - wanted.min(axis=0)) / 256
        within = {"float32": 1e-5, "float16": 1e-3, "int8": float(steps.max()) * 1.5}[precision]
        np.testing.assert_allclose(vectors, wanted, atol=within)
    best = antiphon.search(folder, TEXTS[3], model=model, top=3, where="year>=2003")
    assert all(hit.fields["year"] >= 2003 for hit in best)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 24), st.integers(0, 10**6))
def test_int8_is_off_by_half_a_step_and_stays_within_its_ranges(number, width, seed):
    generator = np.random.default_rng(seed)
    vectors = unit(generator.normal(size=(number, width))).astype(np.float32)
    codec = Codec("int8", Ranges.of(vectors))
    stored = codec.pack(vectors)
    start, step = codec.ranges.start_and_step
    assert stored.dtype == np.int8
    assert (np.abs(start + step * (stored + 128.5) - vectors) <= step * 0.5 + 1e-5).all()
    assert codec.pack(vectors * 9).min() >= -128  # what lies outside is cut, and wraps round nowhere
    assert (np.sign(codec.pack(vectors * 9)[vectors * 9 > codec.ranges.highest]) == 1).all()


class Died(BaseException):
    """A process that is killed at this moment."""


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("moment", ["written", "with_shard"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_run_that_dies_goes_on_to_the_same_rows(model, source, tmp_path, monkeypatch, name, moment, precision):
    """It dies before a manifest is written, when the shard's rows are there, or before these; each time it may."""
    wanted = antiphon.embed(model, source, tmp_path / "whole" / name, precision=precision, shard_size=5)
    out, original = tmp_path / "killed" / name, getattr(Index, moment)
    for most in range(1, 12):
        calls = []

        def dying(self, *arguments, calls=calls, most=most):
            calls.append(1)
            if len(calls) > most:
                raise Died
            return original(self, *arguments)

        monkeypatch.setattr(Index, moment, dying)
        try:
            antiphon.embed(model, source, out, precision=precision, shard_size=5)
            break
        except Died:
            continue
    monkeypatch.setattr(Index, moment, original)
    assert antiphon.embed(model, source, out, precision=precision, shard_size=5, verify=True) == out
    (left, left_vectors), (right, right_vectors) = rows(out), rows(wanted)
    assert left == right
    np.testing.assert_array_equal(left_vectors, right_vectors)
    assert json.loads((out / MANIFEST).read_text()) == json.loads((wanted / MANIFEST).read_text())
    if name.endswith(".lance"):
        assert open_index(out).store.opened().count_rows() == len(TEXTS)


@pytest.mark.parametrize("name", STORES)
def test_a_source_that_grew_is_gone_on_with(model, source, tmp_path, name):
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join(lines[:13]))
    out = antiphon.embed(model, source, tmp_path / name, shard_size=5)
    source.write_text("".join(lines))
    antiphon.embed(model, source, out, shard_size=5)
    assert rows(out)[0] == [(f"t{n}", text, {"year": 2000 + n}) for n, text in enumerate(TEXTS)]


@lance
def test_a_lance_table_that_lost_rows_is_made_again_from_there(model, source, tmp_path, caplog):
    out = antiphon.embed(model, source, tmp_path / "vectors.lance", shard_size=5)
    wanted = rows(out)
    (out / "notes.md").write_text("mine")
    open_index(out).store.opened().delete("antiphon_row = 7")
    with pytest.raises(DataError, match="run the same embed command"):
        antiphon.embed(model, source, out, shard_size=5, verify=True)
    with pytest.raises(DataError, match="run the same embed command again to mend it"):
        rows(out)
    antiphon.embed(model, source, out, shard_size=5)
    assert "is made again" in caplog.text
    assert rows(out)[0] == wanted[0]
    again = antiphon.embed(model, source, out, shard_size=5, force=True)
    assert rows(again)[0] == wanted[0]
    assert (out / "notes.md").read_text() == "mine"
    shutil.rmtree(out / "data")
    with pytest.raises(DataError, match="cannot be read"):
        rows(out)


@lance
def test_a_disk_that_lance_cannot_write_to_is_a_sentence(model, source, tmp_path, monkeypatch):
    from lancedb.table import LanceTable

    out = tmp_path / "vectors.lance"

    def full(*arguments, **named):
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)")

    monkeypatch.setattr(LanceTable, "add", full)
    with pytest.raises(DataError, match=r"No space left on device.*the 1 shards before are whole"):
        antiphon.embed(model, source, out, shard_size=5)
    monkeypatch.undo()
    antiphon.embed(model, source, out, shard_size=5)
    assert len(rows(out)[0]) == len(TEXTS)


def test_an_id_that_comes_twice_is_refused_before_anything_is_written(model, tmp_path):
    texts = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "three"}]
    with pytest.raises(DataError, match="has two texts with the id 'a'"):
        antiphon.embed(model, texts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="has two texts with the id 'a'"):
        antiphon.embed(model, iter(texts), tmp_path / "out", shard_size=1)


def test_widths_and_precisions_that_cannot_be_are_refused(model, tmp_path):
    for options, words in (
        ({"precision": "int4"}, "There is no precision 'int4'"),
        ({"precision": "binary", "truncate_dim": 12}, "are no multiple of 8"),
        ({"truncate_dim": 0}, "truncate_dim is 0"),
        ({"truncate_dim": 4096}, "truncate_dim is 4096"),
    ):
        with pytest.raises(ConfigError, match=words):
            antiphon.embed(model, ["a text"], tmp_path / "out", **options)
    antiphon.embed(model, ["a text"], tmp_path / "out", precision="float16")
    with pytest.raises(DataError, match="was made with precision float16 and this run has int8"):
        antiphon.embed(model, ["a text"], tmp_path / "out", precision="int8")
    with pytest.raises(DataError, match="was made with dimensions"):
        antiphon.embed(model, ["a text"], tmp_path / "out", precision="float16", truncate_dim=8)


def test_int8_of_texts_unlike_those_before_is_told(model, tmp_path, caplog):
    antiphon.embed(model, iter([*["one and the same"] * 4, *TEXTS]), tmp_path / "out", precision="int8", shard_size=4)
    assert "lie outside of the ranges" in caplog.text


def test_a_cut_vector_has_length_one():
    vectors = unit(np.random.default_rng(0).normal(size=(3, 8))).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(cut(vectors, 3), axis=1), 1, atol=1e-6)
    assert cut(vectors, 8) is vectors


def test_many_files_are_embedded_as_one_and_a_file_more_is_gone_on_with(model, source, tmp_path):
    """As one file with the same rows: the same shards; an id that two files have is refused, nothing is written."""
    lines = source.read_text().splitlines(keepends=True)
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "0.jsonl").write_text("".join(lines[:7]))
    pattern = f"{pages}/*.jsonl"
    out = antiphon.embed(model, pattern, tmp_path / "many", shard_size=5)
    (pages / "1.jsonl").write_text("".join(lines[7:]))
    antiphon.embed(model, pattern, out, shard_size=5)
    antiphon.embed(model, pattern, out, shard_size=5, verify=True)
    whole = antiphon.embed(model, source, tmp_path / "one", shard_size=5)
    assert (out / MANIFEST).read_text() == (whole / MANIFEST).read_text()
    (pages / "2.jsonl").write_text(lines[0])
    with pytest.raises(DataError, match=r"pages/\*\.jsonl has two texts with the id 't0'"):
        antiphon.embed(model, pattern, tmp_path / "refused", shard_size=5)
    assert not (tmp_path / "refused").exists()


@lance
def test_a_table_that_embed_wrote_is_a_source_of_its_texts(model, source, tmp_path):
    table = antiphon.embed(model, source, tmp_path / "vectors.lance", shard_size=5)
    again = antiphon.embed(model, table, tmp_path / "again", keep=["year"], shard_size=5)
    assert rows(again)[0] == rows(table)[0]


def test_a_parquet_that_is_cut_or_has_no_text_is_refused_before_anything_is_written(model, tmp_path):
    path, out = tmp_path / "pages.parquet", tmp_path / "out"
    pq.write_table(pa.table({"id": ["a", "b"], "words": ["one", "two"]}), path)
    with pytest.raises(DataError, match=r"pages\.parquet has no field text or .*, only 'id', 'words'; name one by --f"):
        antiphon.embed(model, path, out)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"pages\.parquet cannot be read as Parquet .*write it anew"):
        antiphon.embed(model, path, out, field="words")
    assert not out.exists()
