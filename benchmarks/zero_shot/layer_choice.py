"""Which layer, without labels: criteria on the fitting texts alone, beside what the tasks say. N texts, D width."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from zero_shot.rows import PLAIN, Row, Vectorizer

from antiphon.encoding import layer_choice
from antiphon.evaluation.scores import load_scores

Criterion = Callable[[np.ndarray, np.ndarray], float]
"""Mapped vectors (N, D) of whole texts and of their halves (2 N, D), one behind the other; more is better."""


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def reciprocal_rank(texts_ND: np.ndarray, halves_ND: np.ndarray) -> float:
    """Return at which rank the second half of a text comes, of all second halves, for its first: the mean of 1 / r."""
    return layer_choice.reciprocal_rank(halves_ND[::2], halves_ND[1::2])


def margin(texts_ND: np.ndarray, halves_ND: np.ndarray) -> float:
    """Return how many deviations of all pairs' cosines the halves of one text are nearer than others."""
    unit = _unit(halves_ND)
    similarity = unit[::2] @ unit[1::2].T
    others = similarity[~np.eye(len(similarity), dtype=bool)]
    return float((np.diag(similarity).mean() - others.mean()) / others.std())


def effective_rank(texts_ND: np.ndarray, halves_ND: np.ndarray) -> float:
    """Return exp of the entropy of the normalised singular values (RankMe, Garrido and others 2023)."""
    values = np.linalg.svd(_unit(texts_ND), compute_uv=False)
    share = values / values.sum()
    return float(np.exp(-(share * np.log(share + 1e-12)).sum()))


def spread(texts_ND: np.ndarray, halves_ND: np.ndarray) -> float:
    """Return minus the mean cosine of two texts."""
    unit = _unit(texts_ND)
    similarity = unit @ unit.T
    return float(-similarity[~np.eye(len(unit), dtype=bool)].mean())


CRITERIA: Mapping[str, Criterion] = {
    "reciprocal rank of halves": reciprocal_rank,
    "margin of halves": margin,
    "effective rank": effective_rank,
    "spread": spread,
}


def print_choices(
    vectorizer: Vectorizer, methods: Sequence[str], scores: Path, texts: Sequence[str], halves: Sequence[str]
) -> None:
    """Print, for each method and calibration, what each criterion says of the layers and what the choice costs."""
    for method in methods:
        for calibration in (PLAIN, "standardize"):
            rows = [
                row
                for row in vectorizer.rows(method, ["wikipedia"], whole=True)
                if row.calibration == calibration and "raw" not in row.layer
            ]
            found = [(row, place) for row in rows if (place := scores / row.label.replace(" ", "_")).exists()]
            if len(found) > 2:
                _print_choice(vectorizer, found, texts, halves)


def _print_choice(
    vectorizer: Vectorizer, found: Sequence[tuple[Row, Path]], texts: Sequence[str], halves: Sequence[str]
) -> None:
    averages = [load_scores(place).average for _, place in found]
    layers = [row.layers for row, _ in found]
    best = int(np.argmax(averages))
    print(f"\n{found[0][0].method}, {found[0][0].calibration}: best layer {layers[best]} at {100 * averages[best]:.1f}")
    print("  tasks: " + json.dumps({n: round(100 * a, 1) for n, a in zip(layers, averages, strict=True)}))
    encoders = [vectorizer.encoder(row) for row, _ in found]
    wholes = [encode(texts, "", "query").astype(np.float64) for encode in encoders]
    parts = [encode(halves, "", "query").astype(np.float64) for encode in encoders]
    for name, criterion in CRITERIA.items():
        told = [criterion(whole, part) for whole, part in zip(wholes, parts, strict=True)]
        chosen = int(np.argmax(told))
        print(
            f"  {name}: layer {layers[chosen]}, {100 * (averages[chosen] - averages[best]):+.1f} from the best, "
            f"{100 * (averages[chosen] - averages[layers.index(max(layers))]):+.1f} from the last, "
            f"rank correlation {spearmanr(told, averages).statistic:.2f}  "
            + json.dumps({n: round(a, 3) for n, a in zip(layers, told, strict=True)})
        )
