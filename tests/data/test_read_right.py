"""Small inputs that were read wrong once, each with the rows or the score that are right."""

from __future__ import annotations

import gzip
import json

import evaluation_data as data
import pytest
from datasets import Dataset, DatasetDict

from antiphon import build, evaluate
from antiphon.data.mixtures import Mixture, plan, settings_of
from antiphon.data.pairs import load, texts_of
from antiphon.data.skipped import Skipped
from antiphon.data.sources import read
from antiphon.errors import DataError
from antiphon.evaluation.local_tasks import find

DOCUMENTS = [
    "The cat sleeps on the mat all day.",
    "A rocket needs fuel to leave the ground.",
    "Bread rises because yeast makes gas.",
    "Rivers carry sand to the sea.",
    "A violin has four strings.",
    "Snow falls when it is cold.",
]
QUERIES = ["why does bread rise", "what does a rocket need", "how many strings has a violin"]


def beir(folder, documents: dict[str, str], queries: dict[str, str], qrels: str):
    data.jsonl(folder / "corpus.jsonl", [{"_id": name, "title": "", "text": text} for name, text in documents.items()])
    data.jsonl(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in queries.items()])
    (folder / "qrels").mkdir()
    for split in ("test", "train"):
        (folder / "qrels" / f"{split}.tsv").write_text(qrels)
    return folder


@pytest.fixture(scope="module")
def echo():
    return build("nano", template="echo")


def score_of(model, folder):
    scores = evaluate(model, folder, cache=False, instructions="own")
    return scores[folder.name]


def test_negatives_that_come_late_are_read(tmp_path):
    rows = [
        {"query": "how do I do task 0", "positive": "Do task 0 by calling f0."},
        {"query": "task 1", "positive": "Call f1.", "negatives": ["wrong one", "wrong two"]},
        {"query": "task 2", "positive": "Call f2.", "negatives": ["wrong three"]},
    ]
    found = load(data.jsonl(tmp_path / "pairs.jsonl", rows))
    assert found["negative_1"][:] == ["", "wrong one", "wrong three"]
    assert found["negative_2"][:] == ["", "wrong two", ""]
    assert found["label"][:] == [[0, 0], [1, 1], [1, 0]]


def test_a_stray_quote_in_a_tsv_is_text(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(
        'query\tpositive\nfirst\t"an opening quote only\nsecond\ttwo\nthird\tclosing quote"\nlast\tanswer\n'
    )
    assert load(path)["positive"][:] == ['"an opening quote only', "two", 'closing quote"', "answer"]
    path = tmp_path / "texts.tsv"
    path.write_text('id\ttext\n1\t"quoted start\n2\tplain\n3\tend"\n')
    assert [(record.id, record.text) for record in read(path)] == [
        ("1", '"quoted start'),
        ("2", "plain"),
        ("3", 'end"'),
    ]


@pytest.mark.parametrize(
    "header", ["query-id\tcorpus-id\tscore", "corpus-id\tquery-id\tscore", "score\tQuery_ID\tdocid"]
)
def test_judgements_go_by_their_header(header, echo, tmp_path):
    rows = []
    for query, document in (("0", "2"), ("1", "0"), ("2", "1")):
        parts = {"query-id": query, "corpus-id": document, "score": "1", "query_id": query, "docid": document}
        rows.append("\t".join(parts[name.lower()] for name in header.split("\t")))
    documents = {str(n): text for n, text in enumerate(DOCUMENTS)}
    queries = {str(n): text for n, text in enumerate(QUERIES)}
    folder = beir(tmp_path / "named", documents, queries, "\n".join([header, *rows]) + "\n")
    score = score_of(echo, folder)
    assert score.main == pytest.approx(0.596, abs=5e-4)
    assert any("3 of 3 queries share their id with a document, 0 of them its text" in note for note in score.notes)
    assert load(folder)["positive"][:] == [DOCUMENTS[2], DOCUMENTS[0], DOCUMENTS[1]]


def test_an_empty_document_is_kept_and_counted_everywhere(echo, tmp_path):
    documents = {f"d{n}": text for n, text in enumerate(DOCUMENTS)} | {"d99": ""}
    queries = {f"q{n}": text for n, text in enumerate(QUERIES)}
    qrels = "query-id\tcorpus-id\tscore\nq0\td2\t1\nq1\td1\t1\nq2\td4\t1\n"
    folder = beir(tmp_path / "empty", documents, queries, qrels)
    score = score_of(echo, folder)
    assert score.main == pytest.approx(0.877, abs=5e-4)
    assert score.notes == ("1 of 7 documents are empty; they are kept, as empty texts",)
    assert load(folder)["positive"][:] == [DOCUMENTS[2], DOCUMENTS[1], DOCUMENTS[4]]
    assert list(texts_of(folder)) == [*QUERIES, *DOCUMENTS]
    assert [record.text for record in read(folder)] == [*DOCUMENTS, ""]


def test_a_query_that_stands_in_the_corpus_is_left_out_of_its_ranking(echo, tmp_path):
    queries = {f"x{n}": text for n, text in enumerate(QUERIES, start=6)}
    documents = {f"x{n}": text for n, text in enumerate(DOCUMENTS)} | queries
    qrels = "query-id\tcorpus-id\tscore\nx6\tx2\t1\nx7\tx1\t1\nx8\tx4\t1\n"
    folder = beir(tmp_path / "own", documents, queries, qrels)
    score = score_of(echo, folder)
    assert score.main == pytest.approx(0.877, abs=5e-4)
    assert "left out of the query's ranking, as BEIR's protocol does" in " ".join(score.notes)
    (task,) = find(folder)
    assert task.read().parts["ignore_identical_ids"]
    assert not task.read(own_document="keep").parts["ignore_identical_ids"]
    assert task.read(own_document="keep").revision != task.read().revision


def test_judgements_of_missing_documents_are_counted_and_not_fatal(tmp_path, caplog):
    documents = {f"d{n}": text for n, text in enumerate(DOCUMENTS)}
    qrels = "q0\td2\t1\nq0\tgone\t1\nq1\td1\t1\nq1\td1\t1\n"
    folder = beir(tmp_path / "missing", documents, {"q0": QUERIES[0], "q1": QUERIES[1]}, qrels)
    assert len(load(folder)) == 2
    assert "passed over judgements that stand there twice (1); judgements of documents that the corpus" in caplog.text
    read_once = find(folder)[0].read()
    assert "judgements of documents that the corpus has not (1); those count as never found" in read_once.notes
    assert read_once.parts["relevant"]["q0"] == {"d2": 1, "gone": 1}
    with pytest.raises(DataError, match="stand there twice would be passed over"):
        find(folder)[0].read(strict=True)
    (folder / "qrels" / "test.tsv").write_text("q0\td2\t1\nq0\tgone\t1\n")
    with pytest.raises(DataError, match=r"documents that the corpus has not \(1\), and strict reading"):
        find(folder)[0].read(strict=True)
    (folder / "qrels" / "test.tsv").write_text("q0\td2\t1\n")
    with pytest.raises(DataError, match="1 of 2 queries have no relevant document, and strict"):
        find(folder)[0].read(strict=True)
    (folder / "qrels" / "test.tsv").write_text("q0\td2\t1\nq1\td1\t1\n")
    assert find(folder)[0].read(strict=True).notes == ()


def test_the_shapes_of_other_libraries_are_read(tmp_path):
    shapes = {
        "FlagEmbedding": {"query": "q", "pos": ["p"], "neg": ["m", "n"], "pos_scores": [1.0], "prompt": "x"},
        "Tevatron": {
            "query_id": "1",
            "query": "q",
            "positive_passages": [{"docid": "1", "title": "", "text": "p"}],
            "negative_passages": [{"docid": "2", "text": "m"}, {"docid": "3", "text": "n"}],
        },
        "GritLM": {"query": ["Find", "q"], "pos": [["", "p"]], "neg": [["", "m"], ["", "n"]]},
        "MEDI": {"query": ["Find", "q"], "pos": ["Show", "p"], "neg": ["", "m"], "neg_2": "n"},
        "columns": {
            "query": "q",
            "positive_passages": {"docid": ["1"], "title": [""], "text": ["p"]},
            "negative_passages": {"docid": ["2", "3"], "text": ["m", "n"]},
        },
        "numbered": {"anchor": "q", "positive": "p", "negative_10": "n", "negative_2": "m"},
        "hard": {"question": "q", "answer": "p", "hard_negatives": ["m", "n"]},
        "short": {"query": "q", "positive": "p", "neg_0": "m", "neg_1": "n"},
        "plural": {"query": "q", "positive": "p", "negs": ["m", "n"]},
    }
    for name, row in shapes.items():
        found = load(data.jsonl(tmp_path / f"{name}.jsonl", [row]))
        assert [tuple(one.values()) for one in found] == [("q", "p", "m", "n")], name


def test_a_column_that_is_not_used_is_named_once_with_its_nearest(tmp_path, caplog):
    rows = [{"query": "q", "positive": "p", "Negatives": ["n"], "source": "x", "id": 1}] * 3
    assert load(data.jsonl(tmp_path / "pairs.jsonl", rows)).column_names == ["anchor", "positive"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "columns that no pair is made of: 'Negatives' (would be read as 'negatives'), 'source' (2)" in message


def test_a_list_in_a_cell_of_csv_is_a_list(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("""query,positive,negative\nq,p,"['m', 'n']"\nr,"[""o"", ""s""]",one\n""")
    assert [tuple(row.values())[:4] for row in load(path)] == [
        ("q", "p", "m", "n"),
        ("r", "o", "one", ""),
        ("r", "s", "one", ""),
    ]
    path.write_text("""query,positive,negative\nq,"['p']","['m', 'n']"\n""")
    assert find(path)[0].read().parts["test"] == [{"query": "q", "positive": ["p"], "negative": ["m", "n"]}]


def test_a_judged_document_that_is_empty_makes_no_pair_and_is_counted(tmp_path):
    folder = beir(tmp_path / "judged", {"d0": "a", "d1": " "}, {"q0": "x"}, "q0\td0\t1\nq0\td1\t1\n")
    skipped = Skipped()
    assert load(folder, skipped=skipped)["positive"][:] == ["a"]
    assert skipped.counts == {"judgements of empty documents": 1}
    assert find(folder)[0].read().parts["relevant"] == {"q0": {"d0": 1, "d1": 1}}


def test_what_is_passed_over_is_refused_where_reading_is_strict(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = json.dumps({"query": "q", "positive": "p"})
    path.write_text(f"{row}\n\n{row}\n\n\n")
    counted = Skipped()
    assert len(load(path, skipped=counted)) == 2
    assert counted.counts == {"blank lines between rows": 1}
    with pytest.raises(DataError, match=r"line 2: blank lines between rows would be passed over, and strict"):
        load(path, skipped=Skipped(strict=True))


def test_the_order_of_identical_documents_is_told_with_what_it_moves(echo, tmp_path):
    documents = {f"d{n}": text for n, text in enumerate(DOCUMENTS)} | {"a2": DOCUMENTS[2], "z2": DOCUMENTS[2]}
    queries = {f"q{n}": text for n, text in enumerate(QUERIES)}
    # trec_eval puts the later name of two that score alike first: the judged one of three comes last, or first
    scores = []
    for judged in ("a2", "z2"):
        qrels = f"query-id\tcorpus-id\tscore\nq0\t{judged}\t1\nq1\td1\t1\nq2\td4\t1\n"
        scores.append(score_of(echo, beir(tmp_path / judged, documents, queries, qrels)))
    low, high = (score.main for score in scores)
    assert low < high
    for score in scores:
        assert score.notes == (
            f"documents that score alike: the order of ties moves the score between {low:.4f} and {high:.4f}",
        )


def test_what_is_passed_over_is_in_the_plan_of_a_mixture_and_strict_refuses_it(tmp_path):
    rows = [{"query": f"q{n}", "positive": f"p{n}", "source": "web"} for n in range(4)]
    data.jsonl(tmp_path / "pairs.jsonl", rows)
    settings = settings_of(({"name": "web", "source": str(tmp_path / "pairs.jsonl"), "instruction": ""},), "here")
    counted = {"columns that no pair is made of: 'source'": 1}
    assert plan(Mixture.of(settings, seed=0), 2).sets[0].skipped == counted
    with pytest.raises(DataError, match="'source' would be passed over, and strict reading passes over nothing"):
        Mixture.of(settings, seed=0, strict=True)


def test_saved_data_sets_and_folders_of_parquet_are_read(tmp_path):
    table = {"query": ["q0", "q1"], "positive": ["p0", "p1"], "text": ["t0", "t1"], "label": ["a", "b"]}
    Dataset.from_dict(table).save_to_disk(tmp_path / "saved")
    other = Dataset.from_dict({name: [f"{value}!" for value in values] for name, values in table.items()})
    splits = DatasetDict({"test": other, "train": Dataset.from_dict(table)})
    splits.save_to_disk(tmp_path / "splits")
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    other.to_parquet(tmp_path / "parquet" / "data" / "test-00000-of-00001.parquet")
    for number in range(2):
        path = tmp_path / "parquet" / "data" / f"train-0000{number}-of-00002.parquet"
        splits["train"].select([number]).to_parquet(path)
    for name in ("saved", "splits", "parquet"):
        assert load(tmp_path / name)["positive"][:] == ["p0", "p1"]
    assert [record.text for record in read(tmp_path / "saved")] == ["t0", "t1"]
    assert [record.text for record in read(tmp_path / "splits" / "test")] == ["t0!", "t1!"]
    for name in ("splits", "parquet"):
        assert "t0!" in list(texts_of(tmp_path / name))
        assert "t0" not in list(texts_of(tmp_path / name))
        with pytest.raises(DataError, match=r"has the splits 't.*', and one is wanted"):
            next(read(tmp_path / name))
    assert find(tmp_path / "saved")[0].read().parts["test"]["sentences"] == ["t0", "t1"]
    assert find(tmp_path / "parquet")[0].read().parts["test"]["sentences"] == ["t0!", "t1!"]
    with pytest.raises(DataError, match="has the label 'a!'"):
        find(tmp_path / "splits")[0].read()  # train and test are a classification


def test_parts_of_a_beir_folder_may_be_tables_of_any_kind(tmp_path):
    folder = beir(tmp_path / "plain", {"d0": "a", "d1": "b"}, {"q0": "x"}, "q0\td1\t1\n")
    expected = find(folder)[0].read().parts
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    Dataset.from_dict({"_id": ["d0", "d1"], "title": ["", None], "text": ["a", "b"]}).to_parquet(
        other / "corpus.parquet"
    )
    (other / "queries.csv").write_text("_id,text\nq0,x\n")
    (other / "qrels" / "test.jsonl.gz").write_bytes(
        gzip.compress(b'{"score": 1, "corpus-id": "d1", "query-id": "q0"}\n')
    )
    assert find(other)[0].read().parts == expected
