"""Patterns, folders, data sets of the hub and Lance tables as sources: the rows of their files, one after the other."""

from __future__ import annotations

import importlib.util
import json
from itertools import count, islice

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antiphon.data.pairs import texts_of
from antiphon.data.sources import open_source, read
from antiphon.errors import ConfigError, DataError

lance = pytest.mark.skipif(importlib.util.find_spec("lancedb") is None, reason="needs the extra antiphon[scale]")


def rows(first: int, number: int = 3) -> list[dict[str, object]]:
    return [{"id": f"t{n}", "text": f"text {n}", "year": n} for n in range(first, first + number)]


def write(path, items):
    """Write rows as the ending of a path says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item) for item in items]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(items), path)
    elif path.suffix == ".csv":
        path.write_text("\n".join(["id,text", *(f"{one['id']},{one['text']}" for one in items)]) + "\n")
    elif path.suffix == ".txt":
        path.write_text("".join(f"{one['text']}\n" for one in items))
    else:
        path.write_text(f"[{', '.join(lines)}]" if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".txt"])
@pytest.mark.parametrize("named", ["pattern", "folder"])
def test_files_of_one_kind_are_read_in_the_order_of_their_names(tmp_path, ending, named):
    for part in (2, 0, 1):
        write(tmp_path / f"part-{part}{ending}", rows(3 * part))
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "README").write_text("about")
    source = f"{tmp_path}/part-*{ending}" if named == "pattern" else tmp_path
    found = list(read(str(source)))
    assert [one.text for one in found] == [f"text {n}" for n in range(9)]
    plain = ending == ".txt"  # which has no ids: the lines are numbered over all files
    assert [one.id for one in found] == [str(n + 1) if plain else f"t{n}" for n in range(9)]
    if ending in (".jsonl", ".json", ".parquet"):
        assert [one.fields["year"] for one in found] == list(range(9))


def test_a_pattern_is_a_corpus_to_mine(tmp_path):
    for part in range(2):
        write(tmp_path / f"{part}.jsonl", rows(3 * part))
    assert list(texts_of(f"{tmp_path}/*.jsonl")) == [f"text {n}" for n in range(6)]


def test_a_pattern_goes_into_folders_and_columns_are_those_of_any_file(tmp_path):
    write(tmp_path / "a" / "x.jsonl", [{"text": "one"}])
    write(tmp_path / "b" / "c" / "y.jsonl", [{"text": "two", "lang": "en"}])
    source = open_source(f"{tmp_path}/**/*.jsonl")
    assert source.kept == ("lang",)
    assert [(one.id, one.text, one.fields["lang"]) for one in source.records()] == [
        ("1", "one", None),
        ("2", "two", "en"),
    ]


def test_what_is_wrong_with_many_files_names_the_file(tmp_path):
    write(tmp_path / "a.jsonl", rows(0))
    write(tmp_path / "b.jsonl", [{"id": "x", "heading": "no text"}])
    with pytest.raises(DataError, match=r"b\.jsonl, line 1 has no field 'text'"):
        list(read(f"{tmp_path}/*.jsonl"))
    write(tmp_path / "c.csv", rows(0))
    for source, words in (
        (str(tmp_path), r"files of several kinds \(\.csv, \.jsonl\)"),
        (f"{tmp_path}/*", r"files of several kinds"),
        (f"{tmp_path}/*.parquet", r"No file is named .*\*\.parquet; mend the pattern, and put it in quotes"),
    ):
        with pytest.raises(DataError, match=words):
            read(source)
    (tmp_path / "d.exe").write_text("")
    with pytest.raises(DataError, match=r"names .*d\.exe too, which is no known kind"):
        read(f"{tmp_path}/*")
    whole = write(tmp_path / "e.parquet", rows(0)).read_bytes()
    (tmp_path / "f.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"f\.parquet cannot be read as Parquet"):
        read(f"{tmp_path}/*.parquet")


def test_a_file_with_brackets_in_its_name_is_that_file(tmp_path):
    write(tmp_path / "pages[1].jsonl", rows(0))
    assert len(list(read(tmp_path / "pages[1].jsonl"))) == 3


def test_a_data_set_of_the_hub_is_streamed(tmp_path, monkeypatch):
    # to `datasets` a folder seen from here is what a repository of the hub is; the hub itself is not reached
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "owner" / "name" / "train.parquet", rows(0))
    asked, original = [], datasets.load_dataset

    def load(*arguments, **options):
        asked.append((arguments, options))
        return original(*arguments, **options)

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_source("owner/name:default:train")
    for _ in range(2):
        assert [(one.id, one.text, one.fields) for one in source.records()] == [
            (f"t{n}", f"text {n}", {"year": n}) for n in range(3)
        ]
    assert asked == [(("owner/name", "default"), {"split": "train", "streaming": True})]
    with pytest.raises(DataError, match="no file or folder owner/none, and it cannot be had as a data set of the hub"):
        read("owner/none")


def test_a_stream_is_fetched_row_by_row_and_one_that_breaks_off_is_a_sentence(monkeypatch):
    def endless():
        for n in count():
            if n == 50:
                raise ConnectionError("the line is dead")
            yield {"text": f"text {n}"}

    stream = datasets.IterableDataset.from_generator(endless)
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **options: stream)
    source = open_source("owner/name")
    assert [one.text for one in islice(source.records(), 2)] == ["text 0", "text 1"]
    with pytest.raises(DataError, match=r"owner/name broke off behind row 50 \(the line is dead\); run the same"):
        list(source.records())


@lance
def test_a_lance_table_is_read_in_its_order(tmp_path):
    import lancedb

    table = lancedb.connect(tmp_path).create_table("pages", pa.Table.from_pylist(rows(0)))
    table.add(pa.Table.from_pylist(rows(3)))
    found = list(read(tmp_path / "pages.lance", keep=["year"]))
    assert [(one.id, one.text, one.fields["year"]) for one in found] == [(f"t{n}", f"text {n}", n) for n in range(6)]


def test_a_lance_table_that_is_none_or_has_no_lancedb_is_a_sentence(tmp_path, monkeypatch):
    folder = tmp_path / "pages.lance"
    folder.mkdir()
    with pytest.raises(DataError, match="is no Lance table"):
        read(folder)
    (folder / "_versions").mkdir()
    monkeypatch.setitem(__import__("sys").modules, "lancedb", None)
    with pytest.raises(ConfigError, match=r"needs LanceDB: pip install 'antiphon\[scale\]'"):
        read(folder)
