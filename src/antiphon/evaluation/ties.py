"""How much of a retrieval score hangs on the order of documents that score alike, as identical ones do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytrec_eval
from mteb.abstasks import AbsTask

from antiphon.evaluation.examples import Predictions, ranked_of, trec_measure

_ALIKE = 1e-6
"""Scores that differ by less are equal: the rest depends on the companions in a batch."""
_SEEN = 5e-5
"""A score is told to four digits."""


def tie_notes(task: AbsTask, predicted: Predictions | None) -> list[str]:
    """Return a note with the lowest and the highest score that orders of tied documents give, where they differ.

    It is for tasks of one subset and split that are judged by a measure of trec_eval; for others there is none.
    """
    measure = trec_measure(task)
    if task.metadata.type not in ("Retrieval", "Reranking") or predicted is None or measure is None:
        return []
    data, ranked = predicted
    relevant = {query: dict(grades) for query, grades in data["relevant_docs"].items()}
    rankings = {query: _chains(scores) for query, scores in ranked_of(task, ranked).items()}
    low, high = (_score(rankings, relevant, measure, best=best) for best in (False, True))
    if high - low < _SEEN:
        return []
    return [f"documents that score alike: the order of ties moves the score between {low:.4f} and {high:.4f}"]


def _chains(scores: Mapping[str, float]) -> list[list[str]]:
    """Return the documents from the highest score to the lowest, those that score alike together."""
    chains: list[list[str]] = []
    before = np.inf
    for document in sorted(scores, key=lambda name: -scores[name]):
        if before - scores[document] < _ALIKE:
            chains[-1].append(document)
        else:
            chains.append([document])
        before = scores[document]
    return chains


def _score(
    rankings: Mapping[str, list[list[str]]],
    relevant: Mapping[str, Mapping[str, int]],
    measure: tuple[str, str],
    *,
    best: bool,
) -> float:
    """Return the mean over queries with the relevant documents of each tie first, or last."""
    asked, given = measure
    run: dict[str, dict[str, float]] = {}
    for query, chains in rankings.items():
        grades: Mapping[str, Any] = relevant.get(query, {})
        order = [
            document
            for chain in chains
            for document in sorted(chain, key=lambda name: grades.get(name, 0), reverse=best)
        ]
        run[query] = {document: float(-place) for place, document in enumerate(order)}
    found = pytrec_eval.RelevanceEvaluator(relevant, {asked}).evaluate(run)
    return float(np.mean([values[given] for values in found.values()]))
