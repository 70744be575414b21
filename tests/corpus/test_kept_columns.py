"""What stands beside a text comes with it into the shards and out of a search, which it can narrow."""

from __future__ import annotations

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import antiphon
from antiphon.corpus.conditions import Condition
from antiphon.corpus.kept_columns import KeptColumns, read_back
from antiphon.data.text_columns import Record
from antiphon.errors import ConfigError, DataError
from antiphon.model.parity import unlike_texts

TEXTS = unlike_texts()[:6]
ROWS = [
    {
        "id": f"t{n}",
        "text": text,
        "year": 2018 + n,
        "lang": "en" if n % 2 else "de",
        "tags": [f"tag{n}"],
        "more": {"n": n},
    }
    for n, text in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, max_tokens=128, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return antiphon.embed(model, ROWS, tmp_path_factory.mktemp("vectors") / "kept", shard_size=4)


def test_shards_hold_the_columns_and_search_gives_them_back(model, folder):
    table = pq.read_table(sorted(folder.glob("*.parquet")))
    assert table.column_names == ["id", "text", "year", "lang", "tags", "more", "vector"]
    assert table.schema.field("year").type == pa.int64()
    assert table["tags"].to_pylist() == [row["tags"] for row in ROWS]
    assert [json.loads(value) for value in table["more"].to_pylist()] == [row["more"] for row in ROWS]
    hits = antiphon.search(folder, TEXTS[2], top=6)
    assert {hit.id: dict(hit.fields) for hit in hits} == {
        row["id"]: {name: row[name] for name in ("year", "lang", "tags", "more")} for row in ROWS
    }
    at_once = antiphon.search(ROWS, TEXTS[2], top=6, model=model)
    # shards of four and six texts at once are other batches: a processor may round them otherwise
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in at_once], abs=1e-5)
    assert [(hit.id, hit.text, hit.fields) for hit in hits] == [(hit.id, hit.text, hit.fields) for hit in at_once]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("year>=2021", {"t3", "t4", "t5"}),
        (["year < 2021", "lang=en"], {"t1"}),
        ("tags=tag4", {"t4"}),
        ("lang!=en", {"t0", "t2", "t4"}),
        ("id=t5", {"t5"}),
        ("lang=fr", set()),
    ],
)
def test_conditions_leave_texts_out(where, ids, folder):
    assert {hit.id for hit in antiphon.search(folder, TEXTS[0], where=where)} == ids
    every = antiphon.search(folder, TEXTS[0], top=6)
    assert antiphon.search(folder, TEXTS[0], where=where) == [hit for hit in every if hit.id in ids]


def test_a_condition_that_cannot_be_met_is_told(folder):
    with pytest.raises(ConfigError, match="no field 'yaer'; did you mean 'year'"):
        antiphon.search(folder, "a query", where="yaer=1")
    with pytest.raises(ConfigError, match="'year' is no condition; write FIELD=VALUE"):
        antiphon.search(folder, "a query", where="year")


@pytest.mark.parametrize(
    ("words", "value", "holds"),
    [
        ("x=1", 1.0, True),
        ("x=1", "01", True),
        ("x=true", True, True),
        ("x=True", False, False),
        ("x>b", "c", True),
        ("x=a", None, False),
        ("x!=a", None, True),
        ("x!=a", ["a", "b"], False),
        ("x==a b", "a b", True),
        ("x<10", "9", True),
    ],
)
def test_how_values_are_compared(words, value, holds):
    assert Condition.parse(words).holds(Record("i", "t", {"x": value})) is holds


def test_columns_have_one_type_that_all_values_share():
    values = {
        "ints": [1, None, 3],
        "mixed numbers": [1, 2.5, None],
        "mixed": [1, "a", None],
        "nothing": [None, None, None],
        "huge": [2**70, 1, 2],
        "nested": [{"a": 1}, {"b": 2}, {}],
        "empty lists": [[], [], None],
        "lists": [[], ["a"], None],
        "flags": [True, None, False],
    }
    records = [Record(str(n), "t", {name: column[n] for name, column in values.items()}) for n in range(3)]
    kept = KeptColumns()
    for record in records:  # one at a time, as a source is looked through in pieces
        kept = kept.with_values_of([record])
    assert kept.described == {
        "ints": "int64", "mixed numbers": "double", "mixed": "json", "nothing": "string", "huge": "json",
        "nested": "json", "empty lists": "json", "lists": "list<item: string>", "flags": "bool",
    }  # fmt: skip
    columns = {name: array.to_pylist() for name, array in kept.arrays(records).items()}
    assert [read_back(kept.described, columns, n) for n in range(3)] == [dict(record.fields) for record in records]


def test_a_run_that_keeps_other_columns_is_refused(model, tmp_path):
    folder = antiphon.embed(model, ROWS, tmp_path / "out", keep=["year"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match=r"keeps year \(int64\) beside the texts, and this run nothing"):
        antiphon.embed(model, ROWS, folder, keep=())
    changed = [{**row, "year": row["year"] + 1} for row in ROWS]
    with pytest.raises(DataError, match="was made from another source"):
        antiphon.embed(model, changed, folder, keep=["year"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert antiphon.embed(model, ROWS, folder, keep=["year"]) == folder


def test_an_iterator_has_the_columns_of_its_first_shard(model, tmp_path, caplog):
    def rows(last):
        yield from ROWS
        yield {"id": "last", "text": "the last", "year": 2030, "lang": "en", "tags": [], "more": {}, **last}

    out = antiphon.embed(model, rows({}), tmp_path / "out", shard_size=6)
    assert pq.read_table(out / "part-00001.parquet")["year"].to_pylist() == [2030]
    with caplog.at_level(logging.WARNING):
        antiphon.embed(model, rows({"new": 1}), tmp_path / "new", shard_size=6)
    assert "values of 'new', which no text of the first shard has (1)" in caplog.text
    with pytest.raises(DataError, match=r"'year' of 'last' .* not of the type int64"):
        antiphon.embed(model, rows({"year": "later"}), tmp_path / "other", shard_size=6)


def test_several_fields_make_the_vector_that_their_joined_text_has(model, tmp_path):
    rows = [{"title": "Cats", "text": "They sleep."}]
    folder = antiphon.embed(model, rows, tmp_path / "out")
    vectors = np.array(pq.read_table(folder / "part-00000.parquet")["vector"].to_pylist())
    own = model.encode_document(["Cats They sleep."], normalize_embeddings=True)
    assert np.allclose(vectors, own, atol=1e-5)
