"""Every kind of source gives the same records, and everything wrong in one is told with place, value and fix."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antiphon.data.sources import read
from antiphon.data.text_columns import Record
from antiphon.errors import DataError

ROWS = [Record("a", "one text"), Record("b", 'naïve — 東京, "quoted"'), Record("c", "the third")]


def write_rows(path: Path) -> Path:
    """The same three rows as a file of the kind that its ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": [r.id for r in ROWS], "text": [r.text for r in ROWS]}), path)
    elif path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        rows = [f'{r.id}{separator}"{r.text.replace(chr(34), chr(34) * 2)}"' for r in ROWS]
        path.write_text("\n".join([f"id{separator}text", *rows]) + "\n", encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("".join(f"{r.text}\r\n" for r in ROWS), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps({"id": r.id, "text": r.text}) + "\n" for r in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["jsonl", "json-lines", "ndjson", "csv", "tsv", "parquet", "JSONL"])
def test_every_kind_gives_the_same_records(ending, tmp_path):
    path = write_rows(tmp_path / f"rows.{ending}")
    assert list(read(path)) == ROWS
    assert list(read(str(path), field="text")) == ROWS


def test_text_is_a_text_a_line_named_by_its_number(tmp_path):
    path = write_rows(tmp_path / "rows.txt")
    assert list(read(path)) == [Record(str(n), row.text) for n, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize("field", ["text", "body", "content", "sentence", "passage"])
def test_the_text_field_is_found_and_numbers_name_rows_without_id(field, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"title": "no", field: "yes"}) + "\n" + json.dumps({field: "also", "_id": 7}))
    kept = [{"title": "no", field: "yes"}, {"title": None, field: "also"}]
    kept = [{name: value for name, value in fields.items() if name != "text"} for fields in kept]
    assert list(read(path)) == [Record("1", "no yes", kept[0]), Record("7", "also", kept[1])]
    assert [record.text for record in read(path, field=field)] == ["yes", "also"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "marked.csv"
    path.write_bytes(b"\xef\xbb\xbftext\nhello\n")
    assert list(read(path)) == [Record("1", "hello")]


def test_a_quoted_text_may_hold_new_lines_and_errors_count_lines_of_the_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,id\n"two\nlines",1\nplain,2\nragged\n')
    records = read(path)
    assert next(records) == Record("1", "two\nlines")
    assert next(records) == Record("2", "plain")
    with pytest.raises(DataError, match="line 5 has 1 columns and the header has 2"):
        next(records)


def from_stdin(programs: Path, data: bytes, arguments: str) -> str:
    program = f"from antiphon.data.sources import read; print([(r.id, r.text) for r in read('-'{arguments})])"
    command = [str(programs / "python"), "-c", program]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode()


def test_standard_input_is_a_text_a_line_or_json_where_a_field_is_named(programs):
    assert from_stdin(programs, b'{"q": "x"}\ntwo\n', "") == "[('1', '{\"q\": \"x\"}'), ('2', 'two')]\n"
    assert from_stdin(programs, b'{"q": "x"}\n{"q": "y", "id": "z"}\n', ", field='q'") == "[('1', 'x'), ('z', 'y')]\n"


def test_docstrings_are_those_of_the_standard_library():
    records = {record.id: record.text for record in read("docstrings")}
    assert records["textwrap.dedent"].startswith("Remove any common leading whitespace")
    assert len(records) > 1000


BAD = {
    "empty.jsonl": (b"", "is empty"),
    "empty.csv": (b"", "is empty"),
    "header-only.csv": (b"id,text\n", "is empty"),
    "empty.txt": (b"", "is empty"),
    "texts.docx": (b"hello", r"ends in '\.docx'.*rename or convert"),
    "noending": (b"hello", "ends in ''"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', r"line 2 is not JSON .*one JSON object a line"),
    "list.jsonl": (b'["a"]\n', "line 1 is not a JSON object"),
    "nofield.jsonl": (b'{"title": "a"}\n', r"line 1 has no field text or body .*only 'title'; name one by --field"),
    "later.jsonl": (b'{"text": "a"}\n{"body": "b"}\n', "line 2 has no field 'text', only 'body'"),
    "number.jsonl": (b'{"text": "a"}\n{"text": 5}\n', "line 2: 'text' is 5, which is no string"),
    "null.jsonl": (b'{"text": null}\n', "line 1: 'text' is None"),
    "blank.jsonl": (b'{"text": "a"}\n{"text": " \\t"}\n', r"line 2: 'text' has no text, it is ' \\t'; remove the row"),
    "idlist.jsonl": (b'{"text": "a", "id": [1]}\n', r"line 1: 'id' is \[1\], which is no id"),
    "surrogate.jsonl": (b'{"text": "a\\ud800"}\n', "line 1: 'text' holds half of a surrogate pair"),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "line 1 is not JSON"),
    "blank.txt": (b"a\n\nb\n", "line 2 has no text"),
    "blank.csv": (b"id,text\n1,a\n2,\n", "line 3: 'text' has no text"),
    "twice.csv": (b"text,text\na,b\n", "more than one column 'text'"),
    "quote.csv": (b'text\n"never closed\n', "line 2 cannot be read"),
    "latin.txt": ("a\nnaïve\n".encode("latin-1"), r"line 2: byte 3 is 0xef, which is not UTF-8; convert"),
    "binary.jsonl": (bytes(range(256)) * 10, r"binary file \(byte 1 is 0x00\)"),
    "no.parquet": (b"not parquet at all", "cannot be read as Parquet"),
    "cut.parquet": (b"PAR1" + b"x" * 50, "cannot be read as Parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_in_one_sentence(name, tmp_path):
    data, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        list(read(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_fields_are_told_at_once(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*nowhere\.jsonl; name an existing one"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        read(tmp_path)
    with pytest.raises(DataError, match="has no field 'text'; leave the field out"):
        list(read(write_rows(tmp_path / "rows.txt"), field="text"))
    with pytest.raises(DataError, match="'docstrings' has no field"):
        read("docstrings", field="text")


def test_a_parquet_file_lacks_the_column_or_a_value(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"title": ["a"], "text": ["b"]}), path)
    with pytest.raises(DataError, match=r"has no field 'body', only 'title', 'text'"):
        list(read(path, field="body"))
    pq.write_table(pa.table({"text": ["b", None]}), path)
    with pytest.raises(DataError, match="row 2: 'text' is None"):
        list(read(path))
