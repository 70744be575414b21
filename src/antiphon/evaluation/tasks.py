"""Local tasks as mteb's own task classes, so that every metric is mteb's; and tasks by mteb's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from antiphon.evaluation.local_readers import Kind
from antiphon.evaluation.local_tasks import LocalData

MAIN_SCORES: Mapping[Kind, str] = {
    "Retrieval": "ndcg_at_10",
    "Reranking": "map_at_1000",
    "Classification": "accuracy",
    "STS": "cosine_spearman",
    "PairClassification": "cosine_ap",
    "Clustering": "v_measure",
}
"""What a local task is judged by: mteb's choices, with one similarity for pairs where mteb takes the best of five."""


class _Retrieval(AbsTaskRetrieval):
    pass


class _Classification(AbsTaskClassification):
    pass


class _STS(AbsTaskSTS):
    pass


class _PairClassification(AbsTaskPairClassification):
    pass


class _Clustering(AbsTaskClustering):
    # every text is embedded; each of the ten experiments clusters a resample of them
    max_fraction_of_documents_to_embed = None


def local_task(data: LocalData, *, seed: int) -> AbsTask:
    """Return the mteb task over local data, loaded.

    Making it sets the global seeds of random, numpy and torch, as every mteb task does.
    """
    kind, fill = _KINDS[data.kind]
    task: AbsTask = type(kind.__name__.lstrip("_"), (kind,), {"metadata": _metadata(data)})(seed=seed)
    task.dataset = fill(data.parts)
    if isinstance(task, _Clustering):
        task.max_documents_per_cluster = len(task.dataset["test"])
    if isinstance(task, _Retrieval):
        task.ignore_identical_ids = data.parts.get("ignore_identical_ids", False)
    task.data_loaded = True
    return task


def _metadata(data: LocalData) -> TaskMetadata:
    return TaskMetadata(
        name=data.name,
        description=f"A local {data.kind} task.",
        type=data.kind,
        category="t2t",
        dataset={"path": "local/" + data.name, "revision": data.revision},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=MAIN_SCORES[data.kind],
    )


def _retrieval(parts: Mapping[str, Any]) -> Any:
    return {
        "default": {
            "test": {
                "corpus": Dataset.from_list(parts["corpus"]),
                "queries": Dataset.from_list(parts["queries"]),
                "relevant_docs": parts["relevant"],
                "top_ranked": None,
            }
        }
    }


def _reranking(parts: Mapping[str, Any]) -> Any:
    """Every query ranks its own candidates; a text that two queries share is two documents.

    Of equal scores trec_eval puts the later id first: a model that cannot tell candidates apart ranks negatives first.
    """
    corpus, queries, relevant, ranked = [], [], {}, {}
    for number, row in enumerate(parts["test"]):
        query = f"q{number}"
        texts = {
            f"{query}-{rank}-{position:05}": text
            for rank, side in ((1, "positive"), (2, "negative"))
            for position, text in enumerate(row[side])
        }
        corpus += [{"id": document, "title": "", "text": text} for document, text in texts.items()]
        queries.append({"id": query, "text": row["query"]})
        relevant[query] = {document: int(document.startswith(f"{query}-1-")) for document in texts}
        ranked[query] = list(texts)
    filled = _retrieval({"corpus": corpus, "queries": queries, "relevant": relevant})
    filled["default"]["test"]["top_ranked"] = ranked
    return filled


def _columns(parts: Mapping[str, Any]) -> Any:
    return DatasetDict({split: Dataset.from_dict(dict(columns)) for split, columns in parts.items()})


def _classification(parts: Mapping[str, Any]) -> Any:
    # numbers for labels: scikit-learn's average precision, which mteb takes of two labels, knows no names
    numbers = {label: number for number, label in enumerate(sorted(set(parts["train"]["label"])))}
    return _columns(
        {
            split: {**columns, "label": [numbers[label] for label in columns["label"]]}
            for split, columns in parts.items()
        }
    )


_KINDS: Mapping[Kind, tuple[type[AbsTask], Callable[[Mapping[str, Any]], Any]]] = {
    "Retrieval": (_Retrieval, _retrieval),
    "Reranking": (_Retrieval, _reranking),
    "Classification": (_Classification, _classification),
    "STS": (_STS, _columns),
    "PairClassification": (_PairClassification, _columns),
    "Clustering": (_Clustering, _columns),
}
