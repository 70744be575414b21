"""About sixty small files, each read as training pairs, as an evaluation and as texts to embed: all three agree."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antiphon.data.pairs import load
from antiphon.data.sources import read
from antiphon.errors import DataError
from antiphon.evaluation.local_tasks import find

NAMES = ("sentence1", "sentence2", "score")
PLAIN = [("a cat", "the cat"), ("a dog", "the dog"), ("a fish", "the fish")]
HARD = [("naïve — 東京", "emoji 🎉"), ('say "hi", you', "a\u2028b"), ("مرحبا", " spaces ")]
MARK = b"\xef\xbb\xbf"


def jsonl(rows=PLAIN, **more) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects(rows, **more))


def objects(rows=PLAIN, **more):
    return [{"sentence1": a, "sentence2": b, "score": n, **more} for n, (a, b) in enumerate(rows)]


def array(rows=PLAIN, indent=None) -> bytes:
    return json.dumps(objects(rows), ensure_ascii=False, indent=indent).encode()


def separated(separator: str, rows=PLAIN, names=NAMES, end="\n", quote=False) -> bytes:
    whole = [names, *((a, b, str(n)) for n, (a, b) in enumerate(rows))]
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] if quote else row for row in whole]
    return "".join(separator.join(row) + end for row in quoted).encode()


def parquet(rows=PLAIN, kind=None, **more) -> bytes:
    buffer = BytesIO()
    columns = {name: [one[name] for one in objects(rows, **more)] for name in objects(rows, **more)[0]}
    table = pa.table(columns)
    if kind is not None:
        place = table.column_names.index("sentence1")
        table = table.set_column(place, "sentence1", table["sentence1"].cast(kind))
    pq.write_table(table, buffer)
    return buffer.getvalue()


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def not_unicode() -> bytes:
    buffer = BytesIO()
    text = pa.array([b"a\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"sentence1": text, "sentence2": text, "score": [0, 1]}), buffer)
    return buffer.getvalue()


TAB, COMMA, ENDLESS = separated("\t"), separated(","), "x" * 300_000
LATE = b'{"sentence1": "a", "sentence2": "b", "score": 1}\n'
QUOTED = [('say "hi"', "b"), ("c", "d")]
STRAY = [('"open', "b"), ("c", "d"), ('close"', "f")]
LONG = [(ENDLESS, "b"), ("c", "d")]
SPREAD = [("two\nlines", "b\tc,d"), ("c", "d")]
BRACKETS = [("[1] a", "[b]"), ("[c, d]", "[]x")]
A_LIST = r"line 2: 'sentence1' is \['a', 'b'\], which is no string"
READ = {
    # every kind of table
    "plain.jsonl": (jsonl(), PLAIN),
    "plain.json-lines": (jsonl(), PLAIN),
    "plain.ndjson": (jsonl(), PLAIN),
    "UPPER.JSONL": (jsonl(), PLAIN),
    "plain.csv": (COMMA, PLAIN),
    "plain.tsv": (TAB, PLAIN),
    "plain.parquet": (parquet(), PLAIN),
    "lines.json": (jsonl(), PLAIN),
    "array.json": (array(), PLAIN),
    "indented.json": (array(indent=2), PLAIN),
    "marked.json": (MARK + b"\n " + array(), PLAIN),
    # packed
    "packed.jsonl.gz": (gzip.compress(jsonl()), PLAIN),
    "packed.csv.xz": (lzma.compress(COMMA), PLAIN),
    "packed.tsv.bz2": (bz2.compress(TAB), PLAIN),
    "packed.jsonl.zst": (zstandard(jsonl()), PLAIN),
    "packed.json.gz": (gzip.compress(array(HARD)), HARD),
    "twice.tsv.gz": (gzip.compress(TAB[:40]) + gzip.compress(TAB[40:]), PLAIN),
    "wide.csv.gz": (gzip.compress(COMMA.decode().encode("utf-16")), PLAIN),
    # encodings, marks and line ends
    "hard.jsonl": (jsonl(HARD), HARD),
    "hard.csv": (separated(",", HARD, quote=True), HARD),
    "hard.tsv": (separated("\t", HARD), HARD),
    "hard.parquet": (parquet(HARD), HARD),
    "mark.jsonl": (MARK + jsonl(), PLAIN),
    "mark.csv": (MARK + COMMA, PLAIN),
    "little.csv": (COMMA.decode().encode("utf-16"), PLAIN),
    "big.tsv": (b"\xfe\xff" + separated("\t", HARD).decode().encode("utf-16-be"), HARD),
    "wide.jsonl": (json.dumps(objects(HARD)[0], ensure_ascii=False).encode("utf-16"), HARD[:1]),
    "wider.csv": (COMMA.decode().encode("utf-32"), PLAIN),
    "windows.csv": (separated(",", end="\r\n"), PLAIN),
    "windows.tsv": (separated("\t", end="\r\n"), PLAIN),
    "windows.jsonl": (jsonl().replace(b"\n", b"\r\n"), PLAIN),
    "no-end.csv": (COMMA.rstrip(), PLAIN),
    "no-end.jsonl": (jsonl().rstrip(), PLAIN),
    # blank lines
    "end.jsonl": (jsonl() + b"\n\n \n", PLAIN),
    "end.csv": (COMMA + b"\n\r\n", PLAIN),
    "end.tsv": (TAB + b"\n\n", PLAIN),
    "between.jsonl": (jsonl().replace(b"\n", b"\n\n"), PLAIN),
    "between.tsv": (TAB.replace(b"\n", b"\n\n"), PLAIN),
    "before.csv": (b"\n" + COMMA, PLAIN),
    # quotes
    "stray.tsv": (separated("\t", STRAY), STRAY),
    "inch.csv": (separated(",", [('5" disk', "b"), ("c", 'a 3" one')]), [('5" disk', "b"), ("c", 'a 3" one')]),
    "whole.tsv": (separated("\t", QUOTED, quote=True), QUOTED),
    "whole.csv": (separated(",", QUOTED, quote=True), QUOTED),
    "inner.tsv": (separated("\t", [('"a" and "b"', "b"), ("c", "d")]), [('"a" and "b"', "b"), ("c", "d")]),
    "lines.csv": (separated(",", SPREAD, quote=True), SPREAD),
    "lines.tsv": (separated("\t", SPREAD, quote=True), SPREAD),
    # length, order and columns
    "long.csv": (separated(",", LONG), LONG),
    "long.tsv": (separated("\t", LONG, quote=True), LONG),
    "order.tsv": (b"score\tid\tsentence2\tsentence1\n1\tx\tb\ta\n2\ty\td\tc\n", [("a", "b"), ("c", "d")]),
    "more.jsonl": (jsonl(source="web", tags=["x"]), PLAIN),
    "late.jsonl": (LATE + jsonl(PLAIN, extra=1), [("a", "b"), *PLAIN]),
    "brackets.csv": (separated(",", BRACKETS, quote=True), BRACKETS),
    # columns of Parquet
    "large.parquet": (parquet(kind=pa.large_string()), PLAIN),
    "codes.parquet": (parquet(kind=pa.dictionary(pa.int32(), pa.string())), PLAIN),
    # what cannot be read
    "empty.jsonl": (b"", "is empty|is no task"),
    "empty.csv": (b"", "is empty|is no task"),
    "empty.json": (b"[]", "is empty|is no task"),
    "head.tsv": (b"sentence1\tsentence2\tscore\n", "is empty|has 0 pairs"),
    "cut.jsonl": (jsonl()[:-9], "line 3 is not JSON"),
    "cut.json": (array()[:-9], "is not JSON"),
    "list.jsonl": (LATE + b"[1]\n", "line 2 is not a JSON object"),
    "list.json": (b"[1]", "row 1 is not a JSON object"),
    "absent.jsonl": (jsonl() + b'{"sentence2": "b", "score": 1}\n', "line 4 has no field 'sentence1'"),
    "number.jsonl": (jsonl([(5, "b")]), "line 1: 'sentence1' is 5, which is no string"),
    "null.jsonl": (jsonl([(None, "b")]), "line 1: 'sentence1' is None, which is no string"),
    "null.parquet": (parquet([("a", "b"), (None, "b")]), "row 2: 'sentence1' is None, which is no string"),
    "blank.csv": (separated(",", [("a", "b"), (" ", "d")]), "line 3: 'sentence1' has no text, it is ' '"),
    "half.jsonl": (jsonl([("a\ud800", "b")]), "line 1: 'sentence1' holds half of a surrogate pair"),
    "listed.csv": (separated(",", [('["a", "b"]', "c")], quote=True), A_LIST),
    "python.tsv": (separated("\t", [("['a', 'b']", "c")]), A_LIST),
    "numpy.csv": (separated(",", [("['a' 'b']", "c")]), "line 2: 'sentence1' is .*looks like a list of texts"),
    "ragged.csv": (COMMA + b"x,y\n", "line 5 has 2 columns and the header has 3"),
    "ragged.tsv": (TAB + b'"x\ty\n', "line 5 has 2 columns and the header has 3"),
    "open.csv": (COMMA + b'"never closed,y,1\n', "line 5 cannot be read"),
    "again.csv": (separated(",", names=("sentence1", "sentence1", "score")), "has more than one column 'sentence1'"),
    "latin.csv": (COMMA.replace(b"a cat", b"na\xefve"), "line 2: byte 3 is 0xef, which is not UTF-8"),
    "odd.csv": (COMMA.decode().encode("utf-16")[:-1], "is not UTF-16"),
    "binary.csv": (bytes(range(256)), "is a binary file"),
    "torn.csv.gz": (gzip.compress(COMMA * 50)[:-12], "cannot be unpacked"),
    "torn.jsonl.xz": (lzma.compress(jsonl())[:-12], "cannot be unpacked"),
    "torn.jsonl.zst": (zstandard(jsonl())[:-6], "cannot be read"),
    "no.tsv.gz": (TAB, "cannot be read|cannot be unpacked"),
    "bytes.parquet": (not_unicode(), "cannot be read as Parquet"),
    "torn.parquet": (parquet()[:-9], "cannot be read as Parquet"),
}  # fmt: skip


def as_pairs(path):
    found = load(path, columns={"anchor": "sentence1", "positive": "sentence2"})
    return found["anchor"][:], found["positive"][:]


def as_evaluation(path):
    parts = find(path)[0].read().parts["test"]
    return parts["sentence1"], parts["sentence2"]


def as_texts(path):
    first = [record.text for record in read(path, field="sentence1")]
    return first, [record.text for record in read(path, field="sentence2")]


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_alike_by_all(name, tmp_path):
    content, expected = READ[name]
    path = tmp_path / name
    path.write_bytes(content)
    for reader in (as_pairs, as_evaluation, as_texts):
        if isinstance(expected, str):
            with pytest.raises(Exception, match=expected) as caught:
                reader(path)
            assert isinstance(caught.value, DataError) or "no task" in str(caught.value)
            assert "\n" not in str(caught.value)
        elif reader is as_evaluation and len(expected) < 2:
            continue  # one score tells nothing apart
        else:
            assert reader(path) == ([a for a, _ in expected], [b for _, b in expected]), reader.__name__
