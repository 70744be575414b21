"""InfoNCE over the global batch: which texts are a row's negatives, and what the row loses to them.

Row i has the query q_i and its document d_i. By default its candidates are all documents of the batch, its own hard
negatives among them. A candidate is left out where it is missing, where it says what the row's own pair says, or where
it is closer than a margin allows.
Shapes: N pairs of the global batch, C document columns (the positives, then hard negatives), R rows that are scored at
once, K candidates of a direction (N queries, or C * N documents, column behind column), D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
DIRECTIONS: tuple[Direction, ...] = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
WITH_POSITIVE: tuple[Direction, ...] = ("query_to_doc", "doc_to_query")
"""Directions whose candidates hold the row's own positive; in the others the row's own texts are no candidates."""
Hardness = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
HARDNESSES: tuple[Hardness, ...] = ("in_batch_negatives", "hard_negatives", "all_negatives")
Partition = Literal["joint", "per_direction"]
PARTITIONS: tuple[Partition, ...] = ("joint", "per_direction")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How similarities become a loss."""

    scale: float
    directions: tuple[str, ...] = ("query_to_doc",)
    partition: str = "joint"
    hardness: str | None = None
    hardness_strength: float = 0.0
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What is known of the texts of the global batch beside their vectors; None where nothing is."""

    present: torch.Tensor | None = None
    """(C * N), False where a hard negative is missing."""
    query_keys: torch.Tensor | None = None
    """(N), equal for equal texts."""
    document_keys: torch.Tensor | None = None
    """(C * N), of the same kind."""


def info_nce(
    queries_ND: torch.Tensor, documents_KD: torch.Tensor, rows_R: torch.Tensor, texts: Texts, scoring: Scoring
) -> torch.Tensor:
    """Return the sum over the rows of -log(exp(s_i) / sum over candidates of exp(s)), s = scale * cosine.

    Vectors come with length 1. "joint" has one sum over the candidates of all directions, "per_direction" the mean of
    a loss for each. Hardness adds strength * cosine, without gradient, to the scores of negatives (Lan et al. 2025,
    arXiv 2503.04812, eq. 5; for hard negatives alone EmbeddingGemma, arXiv 2509.20354).
    """
    queries_RD, positives_RD = queries_ND[rows_R], documents_KD[rows_R]
    compared = {
        "query_to_doc": (queries_RD, documents_KD),
        "query_to_query": (queries_RD, queries_ND),
        "doc_to_query": (positives_RD, queries_ND),
        "doc_to_doc": (positives_RD, documents_KD),
    }
    cosines = {
        name: left @ compared_to.T for name, (left, compared_to) in compared.items() if name in scoring.directions
    }
    positive_R = cosines["query_to_doc"].gather(1, rows_R[:, None])[:, 0]
    own_RN = F.one_hot(rows_R, len(queries_ND)).bool()
    same = _same(rows_R, texts)
    scores = []
    for name, cosine_RK in cosines.items():
        score_RK = cosine_RK * scoring.scale
        if name == "query_to_doc" and scoring.hardness is not None:
            score_RK = score_RK + _hardness(cosine_RK.detach(), own_RN, scoring)
        out_RK = _left_out(name, own_RN, cosine_RK.shape[1], texts.present, same)
        if scoring.margin is not None:
            out_RK |= cosine_RK.detach() > positive_R.detach()[:, None] + scoring.margin
        if name in WITH_POSITIVE:
            out_RK.scatter_(1, rows_R[:, None], False)
        scores.append(score_RK.masked_fill(out_RK, -torch.inf))
    if scoring.partition == "joint":
        normalizer_R = torch.cat(scores, dim=1).logsumexp(dim=1)
    else:
        normalizer_R = torch.stack([score_RK.logsumexp(dim=1) for score_RK in scores]).mean(dim=0)
    return (normalizer_R - positive_R * scoring.scale).sum()


def _left_out(
    name: str,
    own_RN: torch.Tensor,
    candidates: int,
    present_K: torch.Tensor | None,
    same: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Return (R, K): what is no negative whatever its vector; of the row's own positive it says nothing."""
    columns = candidates // own_RN.shape[1]
    to_documents = name.endswith("doc")
    if name in WITH_POSITIVE:
        out_RK = torch.zeros(len(own_RN), candidates, dtype=torch.bool, device=own_RN.device)
    else:
        out_RK = own_RN.repeat(1, columns)
    if to_documents and present_K is not None:
        out_RK |= ~present_K
    if same is not None:
        out_RK |= same[1] if to_documents else same[0]
    return out_RK


def _same(rows_R: torch.Tensor, texts: Texts) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return which queries (R, N) and documents (R, C * N) mean what the row's own pair means; None without keys.

    Of a pair that shares a text with the row's, both halves do: another answer to the same question is no negative.
    A hard negative does where it is the row's query or document itself.
    """
    queries, documents = texts.query_keys, texts.document_keys
    if queries is None or documents is None:
        return None
    own_R2 = torch.stack([queries[rows_R], documents[rows_R]], dim=1)
    query_is_RN = (own_R2[:, :, None] == queries).any(dim=1)
    document_is_RK = (own_R2[:, :, None] == documents).any(dim=1)
    linked_RN = query_is_RN | document_is_RK[:, : len(queries)]
    return linked_RN, torch.cat([linked_RN, document_is_RK[:, len(queries) :]], dim=1)


def _hardness(cosine_RK: torch.Tensor, own_RN: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    """Return what is added to the scores of documents; the row's own positive never gets any."""
    count = own_RN.shape[1]
    own_RK = own_RN.repeat(1, cosine_RK.shape[1] // count)
    if scoring.hardness == "hard_negatives":
        spared_RK = ~own_RK
        spared_RK[:, :count] = True
    elif scoring.hardness == "in_batch_negatives":
        spared_RK = own_RK
    else:
        spared_RK = own_RK
        spared_RK[:, count:] = False
    return (cosine_RK * scoring.hardness_strength).masked_fill(spared_RK, 0.0)
