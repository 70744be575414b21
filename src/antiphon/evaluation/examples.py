"""What a main score was made of, example by example: read from mteb's predictions, kept only where it adds up."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval
from mteb.abstasks import AbsTask

from antiphon.evaluation.statistics import Sample

TOLERANCE = 1e-4  # mteb rounds retrieval scores to five digits
_TREC = {
    "ndcg_at": "ndcg_cut",
    "map_at": "map_cut",
    "recall_at": "recall",
    "precision_at": "P",
    "hit_rate_at": "success",
}
_SIMILARITIES = {
    "cosine": ("cosine_scores", 1.0),
    "similarity": ("similarity_scores", 1.0),
    "dot": ("dot_scores", 1.0),
    "manhattan": ("manhattan_distances", -1.0),
    "euclidean": ("euclidean_distances", -1.0),
}

logger = logging.getLogger(__name__)


Predictions = tuple[Any, Any]
"""The data of a task's only subset and split, and what mteb wrote down of a model's predictions for it."""


def sample_of(task: AbsTask, main: float, metrics: Mapping[str, Any], predicted: Predictions | None) -> Sample | None:
    """Return the sample behind a task's main score, None where it cannot be told.

    That is so for tasks of several subsets or splits, and for metrics that are no statistic of single examples.
    """
    make = _MAKERS.get(task.metadata.type)
    if make is None or predicted is None:
        return None
    try:
        sample = make(task, metrics, *predicted)
    except (KeyError, IndexError, TypeError) as error:
        logger.debug("No examples of %s: %r", task.metadata.name, error)
        return None
    if sample is None or not abs(sample.score() - main) < TOLERANCE:
        return None
    return sample


def predictions(task: AbsTask, folder: Path) -> Predictions | None:
    """Return the data and the predictions of the only subset and split; None where there are more, or none."""
    path = folder / task.prediction_file_name
    if not path.exists() or len(task.hf_subsets) != 1 or len(task.eval_splits) != 1:
        return None
    subset, split = task.hf_subsets[0], task.eval_splits[0]
    predictions = json.loads(path.read_text(encoding="utf-8"))[subset][split]
    dataset: Any = task.dataset
    return dataset.get(subset, dataset)[split], predictions


def trec_measure(task: Any) -> tuple[str, str] | None:
    """Return trec_eval's names of a task's main score, as asked for and as given; None where it has none."""
    name, _, cutoff = str(task.metadata.main_score).rpartition("_")
    return (f"{_TREC[name]}.{cutoff}", f"{_TREC[name]}_{cutoff}") if name in _TREC else None


def ranked_of(task: Any, ranked: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the scores of documents by query, without a query's own document where the task leaves it out."""
    own = bool(task.ignore_identical_ids)
    return {
        query: {document: score for document, score in scores.items() if not (own and document == query)}
        for query, scores in ranked.items()
    }


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _retrieval(task: Any, metrics: Mapping[str, Any], data: Any, ranked: Any) -> Sample | None:
    found = trec_measure(task)
    if found is None:
        return None
    asked, measure = found
    relevant = {query: dict(grades) for query, grades in data["relevant_docs"].items()}
    of_query = pytrec_eval.RelevanceEvaluator(relevant, {asked}).evaluate(ranked_of(task, ranked))
    ids = tuple(sorted(of_query))
    return Sample("mean", ids, np.array([of_query[query][measure] for query in ids]))


def _sts(task: Any, metrics: Mapping[str, Any], data: Any, scores: Any) -> Sample:
    similarity = str(task.metadata.main_score).removesuffix("_spearman")
    column, sign = _SIMILARITIES[similarity]
    gold = np.asarray(data["score"], dtype=np.float64)
    return Sample("spearman", _numbered(len(gold)), sign * np.asarray(scores[column], dtype=np.float64), gold)


def _pairs(task: Any, metrics: Mapping[str, Any], data: Any, scores: Any) -> Sample:
    main = str(task.metadata.main_score)
    similarity = main.removesuffix("_ap")
    if similarity == "max":
        similarity = max(_SIMILARITIES, key=lambda name: float(metrics.get(f"{name}_ap", -1.0)))
    column, sign = _SIMILARITIES[similarity]
    labels = data[task.label_column_name]
    gold = np.asarray(labels[0] if len(labels) == 1 else labels, dtype=np.float64)
    return Sample("average_precision", _numbered(len(gold)), sign * np.asarray(scores[column]), gold)


def _classification(task: Any, metrics: Mapping[str, Any], data: Any, experiments: Any) -> Sample:
    """How often each text was given its label, over mteb's experiments."""
    gold = np.asarray(data[task.label_column_name])
    right = np.mean([np.asarray(given) == gold for given in experiments], axis=0)
    return Sample("mean", _numbered(len(gold)), right)


def _clustering(task: Any, metrics: Mapping[str, Any], data: Any, assignments: Any) -> Sample:
    """The experiments of mteb, each on texts drawn anew: a V-measure is no mean over texts."""
    values = metrics["v_measures"]
    flat = [value for level in values.values() for value in level] if isinstance(values, Mapping) else values
    return Sample("mean", _numbered(len(flat)), np.asarray(flat, dtype=np.float64))


_MAKERS: Mapping[str, Callable[[Any, Mapping[str, Any], Any, Any], Sample | None]] = {
    "Retrieval": _retrieval,
    "Reranking": _retrieval,
    "STS": _sts,
    "PairClassification": _pairs,
    "Classification": _classification,
    "Clustering": _clustering,
}
