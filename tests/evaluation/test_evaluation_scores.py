"""Scores of whole evaluations equal those computed by hand from the same vectors; averages equal the papers'."""

from __future__ import annotations

import json
import math

import evaluation_data as data
import numpy as np
import pytest
import pytrec_eval
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

import antiphon
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.evaluation import Scores, TaskScore, evaluate, load_scores
from antiphon.evaluation.embedder import CountingEmbedder, ModelEncode
from antiphon.evaluation.local_tasks import find
from antiphon.evaluation.statistics import Sample


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", max_tokens=64, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return data.everything(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def scores(model, files):
    return evaluate(model, list(files.values()), cache=False)


def cosines(model, queries, documents):
    sides = [model.encode_query(queries), model.encode_document(documents)]
    a, b = (side.astype(np.float64) / np.linalg.norm(side.astype(np.float64), axis=1)[:, None] for side in sides)
    return a @ b.T


def ndcg_by_hand(ranked, grades, cutoff=10):
    """Järvelin and Kekäläinen's with the grade as gain, as trec_eval has it."""
    gain = sum(grades.get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(ranked[:cutoff]))
    ideal = sum(
        grade / math.log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:cutoff])
    )
    return gain / ideal


def test_retrieval_is_the_ndcg_of_the_same_vectors(model, files, scores):
    parts = find(files["search"])[0].read().parts
    documents = [f"{row['title']} {row['text']}".strip() for row in parts["corpus"]]
    similarity = cosines(model, [row["text"] for row in parts["queries"]], documents)
    ids = [row["id"] for row in parts["corpus"]]
    run = {row["id"]: dict(zip(ids, map(float, similarity[n]), strict=True)) for n, row in enumerate(parts["queries"])}
    by_hand = {
        query: ndcg_by_hand(sorted(found, key=found.get, reverse=True), parts["relevant"][query])
        for query, found in run.items()
    }
    by_trec = pytrec_eval.RelevanceEvaluator(parts["relevant"], {"ndcg_cut.10"}).evaluate(run)
    assert scores["search"].main == pytest.approx(np.mean(list(by_hand.values())), abs=1e-5)
    assert scores["search"].main == pytest.approx(np.mean([q["ndcg_cut_10"] for q in by_trec.values()]), abs=1e-5)
    sample = scores["search"].sample
    assert dict(zip(sample.ids, sample.first, strict=True)) == pytest.approx(by_hand)


def test_sts_is_scipys_spearman_of_the_same_vectors(model, files, scores):
    columns = find(files["alike"])[0].read().parts["test"]
    predicted = np.diag(_pairwise(model, columns))
    assert scores["alike"].main == pytest.approx(spearmanr(predicted, columns["score"])[0], abs=1e-6)
    assert scores["alike"].interval().mean == pytest.approx(scores["alike"].main)


def _pairwise(model, columns):
    sides = [model.encode_query(columns[name]).astype(np.float64) for name in ("sentence1", "sentence2")]
    a, b = (side / np.linalg.norm(side, axis=1)[:, None] for side in sides)
    return a @ b.T


def test_pairs_are_the_average_precision_of_the_cosine(model, files, scores):
    columns = find(files["same"])[0].read().parts["test"]
    expected = average_precision_score(columns["labels"], np.diag(_pairwise(model, columns)))
    assert scores["same"].main == pytest.approx(expected, abs=1e-6)


def test_reranking_is_the_mean_average_precision_over_own_candidates(model, files, scores):
    precisions = []
    for row in find(files["answers"])[0].read().parts["test"]:
        similarity = cosines(model, [row["query"]], row["positive"] + row["negative"])[0]
        rank = 1 + int((similarity[1:] > similarity[0]).sum())
        precisions.append(1 / rank)  # one positive
    assert scores["answers"].main == pytest.approx(np.mean(precisions), abs=1e-5)


def test_every_task_has_its_category_metric_cost_and_examples(scores):
    assert {name: (score.category, score.metric) for name, score in scores.items()} == {
        "search": ("Retrieval", "ndcg_at_10"),
        "alike": ("STS", "cosine_spearman"),
        "same": ("PairClassification", "cosine_ap"),
        "kinds": ("Classification", "accuracy"),
        "groups": ("Clustering", "v_measure"),
        "answers": ("Reranking", "map_at_1000"),
    }
    for score in scores.values():
        assert score.sample is not None
        assert score.sample.score() == pytest.approx(score.main, abs=1e-4)
        assert score.cost.texts > 0
        assert score.cost.tokens_per_text > 0
        assert score.cost.seconds_per_text > 0
    assert scores.average == pytest.approx(np.mean([score.main for score in scores.values()]))


def test_a_second_evaluation_gives_the_same_scores(model, files, scores):
    again = evaluate(model, list(files.values()), cache=False)
    assert {name: score.main for name, score in again.items()} == {name: score.main for name, score in scores.items()}
    assert again.revision == scores.revision


# Anchor's main table: the category means of MTEB English v1 and the printed average over its 56 tasks
COUNTS = {
    "Retrieval": 15,
    "Reranking": 4,
    "Clustering": 11,
    "PairClassification": 3,
    "Classification": 12,
    "STS": 10,
    "Summarization": 1,
}
ROWS = {
    "Anchor, Llama-3.2-1B": ((52.60, 56.65, 44.75, 85.48, 72.47, 82.10, 30.87), 62.24),
    "base, Llama-3.2-1B": ((50.06, 54.94, 44.38, 82.71, 72.17, 81.27, 29.94), 60.99),
    "Anchor, Qwen2.5-1.5B": ((53.62, 57.63, 43.19, 85.77, 74.51, 82.74, 31.61), 62.86),
    "Anchor, Llama-3.2-3B": ((53.66, 57.77, 45.48, 86.53, 75.59, 82.48, 30.81), 63.55),
    "Anchor, Llama-3.1-8B": ((57.09, 61.38, 46.03, 88.92, 76.17, 83.76, 30.13), 65.30),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_average_is_the_papers_average_56(row):
    means, printed = ROWS[row]
    noise = np.random.default_rng(0)
    tasks = {}
    for (category, count), mean in zip(COUNTS.items(), means, strict=True):
        spread = noise.normal(0, 3, count)
        for number, value in enumerate(mean + spread - spread.mean()):
            tasks[f"{category}-{number}"] = TaskScore(f"{category}-{number}", category, "m", value / 100)
    scores = Scores("model", "label", "revision", "", tasks)
    assert len(scores) == 56
    assert 100 * scores.average == pytest.approx(printed, abs=0.011)
    assert list(scores.categories) == list(COUNTS)
    assert [100 * value for value in scores.categories.values()] == pytest.approx(list(means))


def test_a_probe_has_no_part_in_the_average():
    tasks = {"a": TaskScore("a", "STS", "m", 0.5), "p": TaskScore("p", "Probe", "m", 0.1)}
    scores = Scores("model", "label", "revision", "", tasks)
    assert scores.average == 0.5
    assert scores.categories == {"STS": 0.5}


def test_a_folder_of_scores_reads_back_and_is_not_overwritten_by_others(scores, tmp_path):
    folder = scores.save(tmp_path / "run")
    read = load_scores(folder)
    assert read.to_dict() == scores.to_dict()
    for name, score in scores.items():
        assert read[name].sample.ids == score.sample.ids
        assert read[name].interval() == score.interval()
    assert json.loads((folder / "scores.json").read_text())["average"] == scores.average
    scores.save(folder)  # the same run again
    assert load_scores(folder).to_dict() == scores.to_dict()
    other = Scores("model", "other", "another revision", "", {"a": TaskScore("a", "STS", "m", 0.5)})
    with pytest.raises(DataError, match="which this run does not replace"):
        other.save(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no scores\.json; nothing was written"):
        other.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    with pytest.raises(DataError, match=r"holds no scores\.json"):
        load_scores(tmp_path / "mine")
    with pytest.raises(KeyError, match="There is no score of 'nothing'"):
        scores["nothing"]


@pytest.mark.parametrize(("value", "word"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_a_vector_that_is_no_direction_is_refused(value, word):
    def broken(texts, prompt, side):
        vectors = np.ones((len(texts), 3), dtype=np.float32)
        vectors[-1] = value
        return vectors

    with pytest.raises(ModelError, match=f"The vector of 'b' is {word}"):
        CountingEmbedder(broken).embed(["aa", "b"], "", "query")


def test_a_model_that_gives_nan_has_no_score(tiny_base, files):
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="is not finite"):
        evaluate(model, files["alike"], cache=False)


def test_texts_are_embedded_once_and_come_back_in_order():
    asked = []

    def encode(texts, prompt, side):
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    embedder = CountingEmbedder(encode)
    texts = ["bb", "a", "ccc", "a"] * 20
    vectors = embedder.embed(texts, "", "query")
    assert [int(vector[0]) for vector in vectors] == [len(text) for text in texts]
    assert sorted(asked) == ["a", "bb", "ccc"]
    assert embedder.embedded == 3


def test_seconds_are_those_of_texts_and_not_of_what_is_prepared(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("antiphon.evaluation.embedder.time.perf_counter", lambda: clock[0])
    ready = []

    def prepare():
        if not ready:
            clock[0] += 100.0
        ready.append(True)

    def encode(texts, prompt, side):
        assert ready
        clock[0] += len(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    embedder = CountingEmbedder(encode, prepare=prepare)
    embedder.embed(["a", "b"], "", "query")
    embedder.embed(["a", "c"], "", "document")
    assert (embedder.seconds, embedder.embedded) == (4.0, 4)


def test_a_bar_costs_no_texts(model, files, monkeypatch):
    read = []
    encode = ModelEncode.__call__
    monkeypatch.setattr(
        ModelEncode, "__call__", lambda self, texts, *more: read.extend(texts) or encode(self, texts, *more)
    )
    for progress in (True, False):
        evaluate(model, files["alike"], cache=False, progress=progress)
    half = len(read) // 2
    assert read[:half] == read[half:]


def test_unknown_and_doubled_tasks_are_refused(model, files, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean STSBenchmark"):
        evaluate(model, "STSBenchmrk", cache=False)
    other = data.sts(tmp_path / "alike.tsv")
    with pytest.raises(ConfigError, match="Two tasks are called 'alike'"):
        evaluate(model, [files["alike"], other], cache=False)
    with pytest.raises(ConfigError, match="There are no tasks"):
        evaluate(model, [], cache=False)
    with pytest.raises(ConfigError, match="drop the limit"):
        evaluate(model, ["STSBenchmark"], limit=10, cache=False)


def test_data_of_the_hub_that_cannot_be_had_are_told(model):
    with pytest.raises(DataError, match="The data of BIOSSES could not be loaded"):
        evaluate(model, "BIOSSES", cache=False)


def test_a_sample_that_lacks_its_gold_values_is_refused():
    with pytest.raises(DataError, match="needs its gold values"):
        Sample("spearman", ("a",), np.zeros(1)).score()
