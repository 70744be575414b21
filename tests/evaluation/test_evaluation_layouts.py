"""Local task files: every layout is known by itself, and what cannot be scored honestly is refused or stated."""

from __future__ import annotations

import evaluation_data as data
import pytest

from antiphon.errors import ConfigError, DataError
from antiphon.evaluation.local_tasks import find

JUDGED = [("q0", "d0", 1), ("q1", "d1", 1), ("q2", "d2", 1), ("q3", "d3", 1), ("q4", "d4", 1)]


def test_every_layout_is_recognised(tmp_path):
    data.everything(tmp_path)
    kinds = {layout.name: layout.kind for layout in find(tmp_path)}
    assert kinds == {
        "search": "Retrieval",
        "alike": "STS",
        "same": "PairClassification",
        "kinds": "Classification",
        "groups": "Clustering",
        "answers": "Reranking",
    }
    for layout in find(tmp_path):
        assert layout.read().notes == ()


def test_a_split_is_named_by_its_file(tmp_path):
    folder = data.beir(tmp_path / "search")
    dev = data.tsv(folder / "qrels" / "dev.tsv", [("q0", "d0", 1)])
    assert [layout.name for layout in find(folder)] == ["search"]
    (layout,) = find(dev)
    assert layout.name == "search-dev"
    assert layout.read().parts["relevant"] == {"q0": {"d0": 1}}  # a file without a header is read from its first line
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "train.tsv")
    with pytest.raises(ConfigError, match=r"2 files and none is test\.tsv"):
        find(folder)


def test_the_revision_is_that_of_the_content(tmp_path):
    one, other = (find(data.sts(tmp_path / name / "alike.tsv"))[0] for name in "ab")
    assert one.read().revision == other.read().revision
    other.files[0].write_text(other.files[0].read_text().replace("\t0.0", "\t0.5"))
    assert one.read().revision != other.read().revision
    assert one.read(limit=5).revision != one.read().revision
    assert one.read(limit=5, seed=1).revision != one.read(limit=5, seed=2).revision


def test_a_cap_is_seeded_and_stated(tmp_path):
    (layout,) = find(data.sts(tmp_path / "alike.tsv"))
    capped = layout.read(limit=5, seed=3)
    assert capped.notes == ("5 of 12 pairs, drawn with seed 3",)
    assert len(capped.parts["test"]["score"]) == 5
    assert capped.parts == layout.read(limit=5, seed=3).parts
    assert layout.read(limit=100).notes == ()
    with pytest.raises(ConfigError, match="at least 2"):
        layout.read(limit=1)


def test_empty_documents_are_kept_and_counted(tmp_path):
    folder = data.beir(tmp_path / "search")
    rows = [{"_id": f"d{n}", "title": "", "text": "" if n == 3 else f"text {n}"} for n in range(10)]
    data.jsonl(folder / "corpus.jsonl", rows)
    read = find(folder)[0].read()
    assert read.notes == ("1 of 10 documents are empty; they are kept, as empty texts",)
    assert len(read.parts["corpus"]) == 10


def test_queries_without_a_relevant_document_are_left_out_and_counted(tmp_path):
    read = find(data.beir(tmp_path / "search", qrels=[*JUDGED[:3], ("q3", "d3", 0)]))[0].read()
    assert read.notes == ("2 of 5 queries have no relevant document; left out",)
    assert [row["id"] for row in read.parts["queries"]] == ["q0", "q1", "q2"]


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ([("q9", "d0", 1)], "line 2: there is no query with the id 'q9'"),
        ([("q0", "d0", 1), ("q0", "d0", 2)], "line 3: query 'q0' and document 'd0' are judged twice, 1 and 2"),
        ([("q0", "d0", "high")], "line 2: 'score' is 'high', which is no finite number"),
        ([("q0", "0", "d0", 1)], "line 2 has 4 columns and the header has 3"),
        ([("q0 d0 1",)], "line 2 has 1 columns and the header has 3"),
        ([("q0", "d0", 0)], "names no relevant document"),
    ],
)
def test_bad_qrels_are_refused(tmp_path, qrels, message):
    with pytest.raises(DataError, match=message):
        find(data.beir(tmp_path / "search", qrels=qrels))[0].read()


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("corpus.jsonl", {"_id": "d1", "text": "again"}, "line 11 has the id 'd1', as .*line 2 has"),
        ("queries.jsonl", {"_id": "q1", "text": "again"}, "line 6 has the id 'q1', as .*line 2 has"),
        ("queries.jsonl", {"_id": "q7", "text": " "}, "line 6: 'text' has no text"),
        ("corpus.jsonl", {"_id": "d77"}, "has no field 'text'"),
        ("corpus.jsonl", {"_id": None, "text": "x"}, "'_id' is None, which is no id"),
        ("corpus.jsonl", {"_id": "d77", "text": 5}, "'text' is 5, which is no string"),
        ("corpus.jsonl", {"_id": "d77", "text": "\ud800"}, "half of a surrogate pair"),
        ("corpus.jsonl", ["d77"], "is not a JSON object"),
    ],
)
def test_bad_documents_and_queries_are_refused(tmp_path, file, row, message):
    path = data.beir(tmp_path / "search") / file
    lines = path.read_text()
    data.jsonl(path, [row])
    path.write_text(lines + path.read_text())
    with pytest.raises(DataError, match=message):
        find(tmp_path / "search")[0].read()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "b", "nan"), ("c", "d", 1)], "line 2: 'score' is 'nan', which is no finite number"),
        ([("a", "b", "good"), ("c", "d", 1)], "line 2: 'score' is 'good'"),
        ([("a", "b", 1), ("c", "d", 1)], "no two different values"),
        ([("a", "", 1), ("c", "d", 2)], "line 2: 'sentence2' has no text"),
        ([("a", "b"), ("c", "d", 2)], "line 2 has 2 columns"),
        ([], "0 pairs"),
    ],
)
def test_bad_pairs_are_refused(tmp_path, rows, message):
    path = data.tsv(tmp_path / "alike.tsv", [("sentence1", "sentence2", "score"), *rows])
    with pytest.raises(DataError, match=message):
        find(path)[0].read()


def test_labels_of_pairs_are_zero_and_one(tmp_path):
    path = data.tsv(tmp_path / "same.tsv", [("sentence1", "sentence2", "label"), ("a", "b", 1), ("c", "d", 2)])
    with pytest.raises(DataError, match="the label is '2'; 0 or 1 is wanted"):
        find(path)[0].read()


def test_a_label_that_only_the_test_has_is_refused(tmp_path):
    folder = data.classification(tmp_path / "kinds")
    data.jsonl(folder / "test.jsonl", [{"text": "x", "label": "code"}, {"text": "y", "label": "verse"}])
    with pytest.raises(DataError, match=r"has the label 'verse' \(1 such labels\)"):
        find(folder)[0].read()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "positive": [], "negative": ["n"]}, "'positive' is \\[\\]"),
        ({"query": "q", "positive": "p", "negative": ["n"]}, "'positive' is 'p'"),
        ({"query": "", "positive": ["p"], "negative": ["n"]}, "line 7: 'query' has no text"),
    ],
)
def test_bad_candidates_are_refused(tmp_path, row, message):
    path = data.reranking(tmp_path / "answers.jsonl")
    data.jsonl(tmp_path / "more.jsonl", [row])
    path.write_text(path.read_text() + (tmp_path / "more.jsonl").read_text())
    with pytest.raises(DataError, match=message):
        find(path)[0].read()


def test_what_is_no_task_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="There is no file or folder"):
        find(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="is no task"):
        find(tmp_path)
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        find(broken)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    plain = data.sts(tmp_path / "alike.tsv")
    marked = tmp_path / "marked" / "alike.tsv"
    marked.parent.mkdir()
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    assert find(marked)[0].read().parts == find(plain)[0].read().parts
