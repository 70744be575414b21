"""Every kind of source gives the same pairs in the same shape, and a bad line is told with its place."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.data.docstrings import of_standard_library
from antiphon.data.docstrings import pairs as docstring_pairs
from antiphon.data.pairs import Pair, load, resolve, texts_of, to_dataset
from antiphon.data.pairs.pair_folders import ECHO_DATA, echo_data
from antiphon.errors import ConfigError, DataError

ROWS = [("what is ä?", "a letter", "a number"), ("two\nlines", 'with "quotes", and commas', "none"), ("c", "d", "e")]
TRAIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "train"
real_data = pytest.mark.skipif(not TRAIN.is_dir(), reason="needs the folder shared/data/train beside the checkout")


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_rows(path: Path, names: tuple[str, str, str]) -> Path:
    """The same rows as a file of the kind that its ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row[n] for row in ROWS] for n, name in enumerate(names)}), path)
    elif path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        quoted = [[f'"{text.replace(chr(34), chr(34) * 2)}"' for text in row] for row in [names, *ROWS]]
        path.write_text("".join(separator.join(row) + "\n" for row in quoted), encoding="utf-8")
    else:
        write_jsonl(path, [dict(zip(names, row, strict=True)) for row in ROWS])
    return path


def rows_of(dataset) -> list[tuple]:
    return [tuple(row.values()) for row in dataset]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("names", [("query", "positive", "negative"), ("question", "answer", "negative_1")])
def test_every_kind_gives_the_same_pairs(ending, names, tmp_path):
    dataset = load(write_rows(tmp_path / f"pairs.{ending}", names))
    assert dataset.column_names == ["anchor", "positive", "negative_1"]
    assert rows_of(dataset) == ROWS
    assert rows_of(load(tmp_path / f"pairs.{ending}", limit=2)) == ROWS[:2]
    assert load(tmp_path / f"pairs.{ending}", negatives=0).column_names == ["anchor", "positive"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_columns_are_mapped(ending, tmp_path):
    path = write_rows(tmp_path / f"pairs.{ending}", ("a", "b", "c"))
    assert rows_of(load(path, columns={"anchor": "a", "positive": "b", "negative": "c"})) == ROWS
    swapped = load(path, columns={"anchor": "b", "positive": "a"})
    assert swapped.column_names == ["anchor", "positive"]
    assert swapped["anchor"][0] == "a letter"
    numbered = load(path, columns={"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": "a"})
    assert numbered["negative_2"][2] == "c"


def test_missing_negatives_are_empty_and_labelled(tmp_path):
    path = write_jsonl(
        tmp_path / "pairs.jsonl",
        [
            {"query": "a", "positive": "b", "negatives": ["c", "d"]},
            {"query": "e", "positive": "f", "negatives": "g"},
            {"query": "h", "positive": "i"},
            {"query": "j", "positive": "k", "negatives": ["", None, "l"]},
        ],
    )
    dataset = load(path)
    assert rows_of(dataset) == [
        ("a", "b", "c", "d", [1, 1]),
        ("e", "f", "g", "", [1, 0]),
        ("h", "i", "", "", [0, 0]),
        ("j", "k", "l", "", [1, 0]),
    ]
    assert rows_of(load(path, negatives=1)) == [
        ("a", "b", "c", [1]),
        ("e", "f", "g", [1]),
        ("h", "i", "", [0]),
        ("j", "k", "l", [1]),
    ]
    assert load(path, limit=1).column_names == ["anchor", "positive", "negative_1", "negative_2"]


def test_a_list_of_positives_is_a_pair_each(tmp_path):
    rows = [{"query": "q", "positive": ["a", "b"], "negative": ["c"]}]
    assert rows_of(load(write_jsonl(tmp_path / "p.jsonl", rows))) == [("q", "a", "c"), ("q", "b", "c")]


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.builds(Pair, texts, texts, st.lists(texts, max_size=4).map(tuple)), min_size=1, max_size=30))
def test_a_table_holds_every_pair_once(pairs):
    dataset = to_dataset(pairs)
    most = max(len(pair.negatives) for pair in pairs)
    assert ("label" in dataset.column_names) == (len({len(pair.negatives) for pair in pairs}) > 1)
    for pair, row in zip(pairs, dataset, strict=True):
        negatives = [row[f"negative_{n + 1}"] for n in range(most)]
        label = row.get("label", [1] * most)
        assert (row["anchor"], row["positive"]) == (pair.anchor, pair.positive)
        assert tuple(text for text, real in zip(negatives, label, strict=True) if real) == pair.negatives
        assert all((text != "") == real for text, real in zip(negatives, label, strict=True))


BAD = {
    "empty.jsonl": ("", "is empty: there is no pair"),
    "list.jsonl": ('["a"]\n', "line 1 is not a JSON object"),
    "broken.jsonl": ('{"query": "a", "positive": "b"}\n{"query": \n', "line 2 is not JSON"),
    "noanchor.jsonl": ('{"text": "a"}\n', r"line 1 has no field anchor or query or question .*only 'text'.*column map"),
    "nopositive.jsonl": ('{"query": "a"}\n', "line 1 has no field positive or pos or answer"),
    "later.jsonl": ('{"query": "a", "positive": "b"}\n{"query": "a"}\n', "line 2 has no field 'positive'"),
    "blank.jsonl": (
        '{"query": "a", "positive": "b"}\n{"query": " ", "positive": "b"}\n',
        "line 2: 'query' has no text",
    ),
    "number.jsonl": ('{"query": "a", "positive": 7}\n', "line 1: 'positive' is 7, which is no string"),
    "nopositives.jsonl": ('{"query": "a", "positive": []}\n', "line 1: 'positive' is an empty list"),
    "negative.jsonl": ('{"query": "a", "positive": "b", "negative": [3]}\n', "line 1: 'negative' is 3"),
    "surrogate.jsonl": ('{"query": "a\\ud800", "positive": "b"}\n', "line 1: 'query' holds half of a surrogate pair"),
    "ragged.csv": ("query,positive\na,b\nc\n", "line 3 has 1 columns and the header has 2"),
    "blank.tsv": ("query\tpositive\na\tb\nc\t\n", "line 3: 'positive' has no text"),
    "texts.txt": ("hello\n", r"ends in '\.txt'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_with_file_and_line(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_cannot_be_used(tmp_path):
    path = write_rows(tmp_path / "pairs.jsonl", ("query", "positive", "negative"))
    with pytest.raises(ConfigError, match=r"no part 'anchr' .*did you mean 'anchor'"):
        load(path, columns={"anchr": "query"})
    with pytest.raises(DataError, match="has no field 'title' for the positive, only 'query', 'positive', 'negative'"):
        load(path, columns={"positive": "title"})
    with pytest.raises(ConfigError, match="limit is 0"):
        load(path, limit=0)
    with pytest.raises(ConfigError, match="negatives is -1"):
        load(path, negatives=-1)
    with pytest.raises(DataError, match=r"There is no file .*nowhere\.jsonl"):
        load(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="There is no file or folder owner/name, and it cannot be had"):
        load("owner/name:default:train")


def test_a_data_set_of_the_hub_is_read_as_a_table(tmp_path, monkeypatch):
    # to `datasets` a folder seen from here is what a repository of the hub is, and it needs no network
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    write_rows(tmp_path / "owner" / "name" / "train.parquet", ("query", "positive", "negative"))
    assert rows_of(load("owner/name:default")) == ROWS
    assert rows_of(load("owner/name:default:train", limit=1)) == ROWS[:1]
    with pytest.raises(DataError, match="owner/name:default has no field 'q' for the anchor"):
        load("owner/name:default", columns={"anchor": "q"})
    with pytest.raises(DataError, match="no file or folder owner/name, and it cannot be had"):
        load("owner/name:default:dev")


def beir(folder: Path, judgements: str) -> Path:
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "T" * n, "text": f"text {n}"} for n in range(4)])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(3)])
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements)
    return folder


def test_a_beir_folder_gives_a_pair_for_each_judgement(tmp_path):
    dataset = load(beir(tmp_path, "q0\td0\t1\nq1\td2\t2\nq0\td3\t0\nq1\td1\t1\n"))
    assert rows_of(dataset) == [
        ("query 0", "text 0", "TTT text 3", [1]),
        ("query 1", "TT text 2", "", [0]),
        ("query 1", "T text 1", "", [0]),
    ]
    assert sorted(texts_of(tmp_path)) == sorted(
        ["text 0", "T text 1", "TT text 2", "TTT text 3", "query 0", "query 1", "query 2"]
    )


def test_what_is_wrong_in_a_beir_folder(tmp_path):
    with pytest.raises(DataError, match=r"train\.tsv, line 2: there is no query 'q9' in .*queries\.jsonl"):
        load(beir(tmp_path, "q9\td0\t1\n"))
    with pytest.raises(DataError, match="line 2: 'score' is 'high', which is no finite number"):
        load(beir(tmp_path, "q0\td0\thigh\n"))
    (tmp_path / "qrels" / "train.tsv").rename(tmp_path / "qrels" / "test.tsv")
    with pytest.raises(DataError, match=r"has no qrels/train\.tsv to train on, only test\.tsv"):
        load(tmp_path)


def test_a_folder_of_sets_lists_what_is_missing(tmp_path, caplog):
    for name in ("nq", "allnli", "allnli_split1", "quora_duplicates_split1", "mine"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"query": name, "positive": "b", "negative": "c"}])
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path)["anchor"][:] == ["allnli", "mine", "nq", "quora_duplicates_split1"]
    assert "lacks 11 of the sets of echo-data: dureader, eli5_question_answer, fever" in caplog.text
    assert len(ECHO_DATA) == 14
    with pytest.raises(DataError, match=r"holds no \.jsonl file"):
        load(beir(tmp_path / "x", "").parent / "x" / "qrels")


@pytest.mark.slow
def test_docstrings_of_packages_leave_the_standard_library_out():
    dataset = load("docstrings", limit=150)
    assert len(dataset) == 150
    library = {pair.summary.lower() for pair in docstring_pairs(of_standard_library())}
    assert len(library) > 1000
    assert not library & {summary.lower() for summary in dataset["anchor"][:]}


def test_texts_of_an_evaluation(tmp_path):
    path = tmp_path / "sts.tsv"
    path.write_text("sentence1\tsentence2\tscore\na b\tc\t4.5\n")
    assert list(texts_of(path)) == ["a b", "c"]
    rows = [{"query": "q", "positive": ["p", "r"], "id": "x", "label": "no"}]
    assert list(texts_of(write_jsonl(tmp_path / "reranking.jsonl", rows))) == ["q", "p", "r"]
    with pytest.raises(DataError, match="no folder in BEIR layout"):
        list(texts_of(tmp_path))


def test_relative_sources_are_seen_from_a_root(tmp_path):
    (tmp_path / "inside").mkdir()
    assert resolve("inside", tmp_path) == str(tmp_path / "inside")
    assert resolve("a.jsonl", tmp_path) == str(tmp_path / "a.jsonl")
    assert resolve("docstrings", tmp_path) == "docstrings"
    assert resolve("owner/name", tmp_path) == "owner/name"
    assert resolve("a.jsonl", None) == "a.jsonl"


@real_data
def test_real_sets_are_read_whole():
    for name, path in echo_data(TRAIN).items():
        dataset = load(path)
        assert len(dataset) == sum(1 for _ in path.open("rb")), name
        assert dataset.column_names == ["anchor", "positive", "negative_1"], name
        first = json.loads(path.open(encoding="utf-8").readline())
        assert list(dataset[0].values()) == [first["query"], first["positive"], first["negative"]], name
