"""Scores of local tasks straight from vectors: mteb's metrics without what it does around them, a row in a second.

A table of hundreds of rows would take a day through mteb, most of it in reading the same rows of data again.
`python benchmarks/zeroshot.py check` compares both on a model. A classification draws its texts of a label once and is
fitted once, where mteb fits ten times; here all ten would draw the same texts. N examples, D width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytrec_eval
from mteb.abstasks import AbsTask
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import v_measure_score

from antiphon.evaluation.embedder import Encode
from antiphon.evaluation.scores import Scores, TaskScore
from antiphon.evaluation.selection import Selected
from antiphon.evaluation.statistics import Sample
from antiphon.evaluation.tasks import MAIN_SCORES

Embed = Callable[[Sequence[str], str], np.ndarray]
"""Texts and a side to (N, D)."""
SEED = 42


def score(selected: Sequence[Selected], encode: Encode, label: str, loaded: dict[str, AbsTask]) -> Scores:
    """Score what `encode` gives on the tasks; `loaded` keeps them from row to row."""
    tasks = {}
    for one in selected:
        if one.name not in loaded:
            loaded[one.name] = one.load()[0]
        task = loaded[one.name]
        kind = task.metadata.type
        sample = _KINDS[kind](task, lambda texts, side: encode(texts, "", side))
        revision = task.metadata.dataset["revision"]
        tasks[one.name] = TaskScore(one.name, kind, MAIN_SCORES[kind], sample.score(), revision=revision, sample=sample)
    return Scores(label, label, label, "", tasks)


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _pairs(statistic: str, column: str) -> Callable[[Any, Embed], Sample]:
    def sample(task: Any, embed: Embed) -> Sample:
        data = task.dataset["test"]
        first, second = (_unit(embed(data[name], "query")) for name in ("sentence1", "sentence2"))
        cosines = (first * second).sum(1).astype(np.float64)
        return Sample(statistic, _numbered(len(cosines)), cosines, np.asarray(data[column], dtype=np.float64))

    return sample


def _retrieval(task: Any, embed: Embed) -> Sample:
    data = task.dataset["default"]["test"]
    documents = [(row["id"], f"{row['title']} {row['text']}".strip()) for row in data["corpus"]]
    queries = [(row["id"], row["text"]) for row in data["queries"]]
    similarity = (
        _unit(embed([text for _, text in queries], "query"))
        @ _unit(embed([text for _, text in documents], "document")).T
    )
    column = {name: number for number, (name, _) in enumerate(documents)}
    ranked = data["top_ranked"] or {}
    run = {
        query: {name: float(similarity[row, column[name]]) for name in ranked.get(query, column)}
        for row, (query, _) in enumerate(queries)
    }
    measure = {"Retrieval": "ndcg_cut.10", "Reranking": "map_cut.1000"}[task.metadata.type]
    relevant = {query: dict(grades) for query, grades in data["relevant_docs"].items()}
    found = pytrec_eval.RelevanceEvaluator(relevant, {measure}).evaluate(run)
    ids = tuple(sorted(found))
    return Sample("mean", ids, np.array([found[query][measure.replace(".", "_")] for query in ids]))


def _classification(task: Any, embed: Embed) -> Sample:
    train, test = task.dataset["train"], task.dataset["test"]
    classifier = LogisticRegression(max_iter=100).fit(embed(train["text"], "query"), train["label"])
    right = classifier.predict(embed(test["text"], "query")) == np.asarray(test["label"])
    return Sample("mean", _numbered(len(right)), right.astype(np.float64))


def _clustering(task: Any, embed: Embed) -> Sample:
    data = task.dataset["test"]
    vectors_ND, labels = embed(data["sentences"], "query"), np.asarray(data["labels"])
    draw = random.Random(SEED)
    values = []
    for _ in range(10):
        drawn = draw.choices(range(len(labels)), k=len(labels))
        model = MiniBatchKMeans(len(set(labels)), batch_size=512, init="k-means++", n_init=1, random_state=SEED)
        values.append(float(v_measure_score(labels[drawn], model.fit_predict(vectors_ND[drawn]))))
    return Sample("mean", _numbered(len(values)), np.array(values))


_KINDS: Mapping[str, Callable[[Any, Embed], Sample]] = {
    "STS": _pairs("spearman", "score"),
    "PairClassification": _pairs("average_precision", "labels"),
    "Retrieval": _retrieval,
    "Reranking": _retrieval,
    "Classification": _classification,
    "Clustering": _clustering,
}
