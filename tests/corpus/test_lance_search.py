"""A Lance table is searched by vector, words and both; an index finds what it says it does."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from embedded_texts import TEXTS, embedder

import antiphon
from antiphon.corpus.conditions import Condition, sql_of
from antiphon.corpus.hits import Hit
from antiphon.corpus.index import Index
from antiphon.corpus.kept_columns import KeptColumns
from antiphon.corpus.lance_indexing import build_index
from antiphon.corpus.lance_search import INDEX, LanceSearch, VectorIndex
from antiphon.corpus.resuming import prepare
from antiphon.corpus.shards import FolderSettings
from antiphon.data.text_columns import Record
from antiphon.errors import ConfigError, DataError
from antiphon.files import held

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lancedb") is None, reason="needs the extra antiphon[scale]")


@pytest.fixture(scope="module")
def model(tiny_base):
    return embedder(tiny_base)


@pytest.fixture(scope="module")
def rows():
    return [{"id": f"t{n}", "text": text, "year": 2000 + n % 7, "lang": "en" if n % 3 else "de"}
            for n, text in enumerate(TEXTS)]  # fmt: skip


@pytest.fixture(scope="module")
def table(model, rows, tmp_path_factory):
    return antiphon.embed(model, rows, tmp_path_factory.mktemp("lance") / "texts.lance", shard_size=8)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "binary"])
@pytest.mark.parametrize("where", [(), ("year>=2003", "lang!=de"), ("text!=3",)])
def test_a_table_gives_what_parquet_gives(model, rows, tmp_path, precision, where):
    """The exact search of every row that is held in memory is the oracle; of bits the rescored order."""
    options = {"precision": precision, "shard_size": 8}
    parquet = antiphon.embed(model, rows, tmp_path / "parquet", **options)
    lance = antiphon.embed(model, rows, tmp_path / "table.lance", **options)
    for query in (TEXTS[4], "open a file"):
        found, wanted = (antiphon.search(folder, query, model=model, top=6, where=where) for folder in (lance, parquet))
        np.testing.assert_allclose([one.score for one in found], [one.score for one in wanted], atol=2e-6)
        assert {one.id for one in found} == {one.id for one in wanted}
        assert all(hit.fields["year"] for hit in found)


def test_without_a_model_the_one_that_made_the_table_is_asked_for(table, model):
    with pytest.raises(DataError, match="made"):
        antiphon.search(table, "a query", model=antiphon.build("nano"))
    assert antiphon.search(table, TEXTS[0], model=model, top=1)[0].score <= 1.00001


def test_what_sql_says_is_what_a_condition_says(rows):
    """Every condition that becomes SQL is judged by LanceDB as by `holds`; those that SQL cannot say become none."""
    import lancedb
    import pyarrow as pa

    columns = {"year": "int64", "lang": "string", "rate": "double"}
    values = [{"id": str(n), "text": "x", "year": n % 5, "lang": ["en", "de", "o'n", None][n % 4], "rate": n / 4}
              for n in range(24)]  # fmt: skip
    opened = lancedb.connect("memory://").create_table("values", pa.Table.from_pylist(values))
    for words in ("year>=3", "year!=2", "lang=en", "lang!=de", "lang=o'n", "rate<1.5", "id=a", "lang<en"):
        condition = Condition.parse(words)
        said = condition.sql({**columns, "id": "string"}[condition.field])
        assert said is not None
        found = {row["id"] for row in opened.search().where(said).limit(100).to_list()}
        records = [Record(row["id"], row["text"], row) for row in values]
        assert found == {one.id for one in records if condition.holds(one)}, words
    assert Condition.parse("lang=3").sql("string") is None
    assert Condition.parse("tags=a").sql("list<item: string>") is None
    assert sql_of([Condition.parse("year>1"), Condition.parse("lang=3")], columns) == "`year` > 1"


def many(folder, number=6000, width=32, precision="float32"):
    """A table of made vectors in clusters, without a model."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(60, width))
    vectors = centres[generator.integers(0, 60, number)] + 0.6 * generator.normal(size=(number, width))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    words = ["apple", "bread", "chair", "delta", "eagle", "frost", "grape"]
    records = [Record(str(n), f"{words[n % 7]} number {n}", {"part": n % 10}) for n in range(number)]
    kept = KeptColumns().with_values_of(records)
    settings = FolderSettings(
        "a model", "document", 4096, width, columns=kept.described, precision=precision, store="lance"
    )
    with held(folder, "embed") as place:
        index: Index = prepare(place, settings, force=False)
        for shard, first in enumerate(range(0, number, 4096)):
            index = index.with_shard(shard, records[first : first + 4096], vectors[first : first + 4096], kept)
        return index.finished(), vectors


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "precision"), [("ivf_rq", "float32"), ("ivf_pq", "float16"), ("ivf_rq", "binary")])
def test_an_index_finds_what_it_says(tmp_path, kind, precision):
    index, vectors = many(tmp_path / "many.lance", precision=precision)
    built = build_index(index.folder, kind=kind, recall=0.95)
    assert built.recall >= 0.95
    assert built == VectorIndex.of(index.folder)
    stored = index.codec.unpack(index.codec.pack(vectors))
    generator = np.random.default_rng(1)
    shares = []
    for row in generator.integers(0, len(vectors), 40):
        query = vectors[row] + 0.05 * generator.normal(size=vectors.shape[1]).astype(np.float32)
        query /= np.linalg.norm(query)
        wanted = np.argsort(-np.round(stored @ query, 6), kind="stable")[:10]
        found = LanceSearch(index, ()).hits("vector", "", query, 10)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        shares.append(len({hit.id for hit in found} & {str(n) for n in wanted}) / 10)
    assert np.mean(shares) > 0.85
    words = LanceSearch(index, [Condition.parse("part=3")]).hits("text", "grape", None, 5)
    assert len(words) == 5
    assert all("grape" in hit.text and hit.fields["part"] == 3 for hit in words)
    both = LanceSearch(index, ()).hits("hybrid", "grape", vectors[5], 5)
    assert any("grape" in hit.text for hit in both)


def test_hits_of_both_are_fused_by_rank(table, model, monkeypatch):
    """Of two lists the one that stands in both comes first; the score is the sum of reciprocal ranks."""
    a, b, c = (Hit(name, name, 0.0) for name in "abc")
    monkeypatch.setattr(LanceSearch, "_by_vector", lambda *args: [a, b])
    monkeypatch.setattr(LanceSearch, "_by_words", lambda *args: [c, b])
    found = antiphon.search(table, "q", model=model, mode="hybrid", top=3)
    assert [hit.id for hit in found] == ["b", "a", "c"]
    assert found[0].score == pytest.approx(2 / 62)


def test_what_cannot_be_searched_or_indexed_is_a_sentence(table, model, rows, tmp_path):
    parquet = antiphon.embed(model, rows, tmp_path / "parquet")
    with pytest.raises(ConfigError, match="needs a Lance table"):
        antiphon.search(parquet, "words", model=model, mode="text")
    with pytest.raises(DataError, match="has no index of its words"):
        antiphon.search(table, "words", model=model, mode="text")
    with pytest.raises(ConfigError, match="There is no mode 'sound'"):
        antiphon.search(table, "words", model=model, mode="sound")
    with pytest.raises(ConfigError, match="holds Parquet, which has no index"):
        build_index(parquet)
    with pytest.raises(ConfigError, match="exact search is as fast"):
        build_index(table)
    with pytest.raises(ConfigError, match="recall is 2"):
        build_index(table, recall=2)
    eight = antiphon.embed(model, rows, tmp_path / "eight.lance", precision="int8")
    with pytest.raises(ConfigError, match="holds int8 vectors"):
        build_index(eight)
    (table / INDEX).write_text(json.dumps({"kind": "ivf_rq"}))
    with pytest.raises(DataError, match="cannot be read"):
        antiphon.search(table, "words", model=model)
    (table / INDEX).unlink()
