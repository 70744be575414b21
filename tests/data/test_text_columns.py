"""Rows keep their fields: several make the text, one names it, and the others come with it, from files and memory."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antiphon.data.skipped import Skipped
from antiphon.data.sources import open_source, read
from antiphon.data.text_columns import Record
from antiphon.errors import DataError

ROWS = [
    {"id": "a", "title": "Cats", "text": "They sleep.", "year": 2019, "tags": ["pet", "fur"]},
    {"id": "b", "title": None, "text": "They bark.", "year": 2021, "tags": []},
]
JOINED = [
    Record("a", "Cats They sleep.", {"title": "Cats", "year": 2019, "tags": ["pet", "fur"]}),
    Record("b", "They bark.", {"title": None, "year": 2021, "tags": []}),
]


def jsonl(folder: Path, rows=ROWS) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


def pandas(folder: Path):
    return pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(ROWS)


def polars(folder: Path):
    return pytest.importorskip("polars", reason="polars is not installed").DataFrame(ROWS)


GIVEN = {
    "jsonl": jsonl,
    "parquet": parquet,
    "dicts": lambda folder: ROWS,
    "iterator": lambda folder: iter(ROWS),
    "data set": lambda folder: datasets.Dataset.from_list(ROWS),
    "arrow": lambda folder: pa.Table.from_pylist(ROWS),
    "pandas": pandas,
    "polars": polars,
}


@pytest.mark.parametrize("kind", GIVEN)
def test_every_kind_gives_the_same_records_with_their_fields(kind, tmp_path):
    assert list(read(GIVEN[kind](tmp_path))) == JOINED


def test_strings_are_texts_named_by_their_number_and_may_be_read_once_or_twice():
    texts = ["one", "two"]
    found = [Record("1", "one"), Record("2", "two")]
    for given in (texts, tuple(texts), dict.fromkeys(texts).keys()):
        source = open_source(given)
        assert source.repeatable
        assert list(source.records()) == list(source.records()) == found
    once = open_source(iter(texts))
    assert not once.repeatable
    assert list(once.records()) == found


def test_an_unnamed_index_of_pandas_is_no_field():
    frame = pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(ROWS)
    assert list(read(frame[frame["year"] > 2020])) == JOINED[1:]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": ["a"]}, "A dict is no list of texts"),
        (b"a", "A bytes is no list of texts"),
        (["a", 5], "item 2 is 5, neither a string nor a dict"),
        (["a", ""], "item 2: 'text' has no text"),
        ([{"text": "a"}, {"text": 5}], "item 2: 'text' is 5, which is no string"),
        ([], "the given texts is empty"),
        (pa.table([[1], [2]], names=["text", "text"]), "more than one column 'text'"),
    ],
)
def test_what_is_wrong_in_memory_is_told(given, message):
    with pytest.raises(DataError, match=message):
        list(read(given))


def test_title_and_text_are_joined_and_it_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        list(read(jsonl(tmp_path)))
    assert "the fields 'title', 'text' are joined" in caplog.text
    caplog.clear()
    assert [one.text for one in read(jsonl(tmp_path), field="text")] == ["They sleep.", "They bark."]
    assert not caplog.text


def test_fields_are_joined_in_the_order_asked_for_and_one_of_them_must_have_words(tmp_path):
    asked = read(jsonl(tmp_path), field=["text", "title"], id_field="year", keep=["tags"])
    assert list(asked) == [
        Record("2019", "They sleep. Cats", {"tags": ["pet", "fur"]}),
        Record("2021", "They bark.", {"tags": []}),
    ]
    with pytest.raises(DataError, match="line 2 has no text in 'title', 'text'"):
        list(read(jsonl(tmp_path, [ROWS[0], {"title": " ", "text": ""}])))


def test_a_single_text_field_is_not_kept_twice(tmp_path):
    path = jsonl(tmp_path, [{"body": "words", "url": "u"}])
    assert list(read(path)) == [Record("1", "words", {"url": "u"})]
    assert list(read(path, keep=["body", "url"])) == [Record("1", "words", {"url": "u"})]
    assert list(read(path, keep=())) == [Record("1", "words")]


def test_names_of_shards_are_not_kept_and_it_is_counted(tmp_path):
    path = jsonl(tmp_path, [{"text": "words", "vector": [1.0], "url": "u"}])
    skipped = Skipped()
    assert list(read(path, skipped=skipped)) == [Record("1", "words", {"url": "u"})]
    assert skipped.lines == ["columns that are called as a shard's own: 'vector' (1)"]
    with pytest.raises(DataError, match="'vector' is what a shard calls its own column"):
        list(read(path, keep=["vector"]))
    with pytest.raises(DataError, match="strict reading"):
        list(read(path, skipped=Skipped(strict=True)))


@pytest.mark.parametrize("asked", [{"field": "titel"}, {"id_field": "titel"}, {"keep": ["titel"]}])
def test_a_field_that_is_not_there_is_told(asked, tmp_path):
    with pytest.raises(DataError, match="has no field 'titel', only 'id', 'title', 'text'"):
        list(read(jsonl(tmp_path), **asked))
    plain = tmp_path / "lines.txt"
    plain.write_text("one\n")
    with pytest.raises(DataError, match="is plain text and has no field 'titel'"):
        list(read(plain, **asked))


def test_documents_of_beir_keep_what_else_they_have(tmp_path):
    row = {"_id": "d", "title": "Cats", "text": "They sleep.", "metadata": {"url": "u"}}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(row))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "who sleeps"}')
    assert list(read(tmp_path)) == [
        Record("d", "Cats They sleep.", {"title": "Cats", "metadata": {"url": "u"}}),
    ]
    assert list(read(tmp_path, keep=["title"])) == [Record("d", "Cats They sleep.", {"title": "Cats"})]
    with pytest.raises(DataError, match="no field 'titel' to keep; did you mean 'title'"):
        read(tmp_path, keep=["titel"])
    with pytest.raises(DataError, match="is in BEIR layout"):
        read(tmp_path, field="text")
