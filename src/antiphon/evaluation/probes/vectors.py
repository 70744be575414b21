"""The shape of the space, and what a vector remembers of the other side."""

from __future__ import annotations

import numpy as np

from antiphon.evaluation.probes.context import Context, ProbeResult
from antiphon.model.prompts import prompt_of
from antiphon.text.template import SIDES
from antiphon.training.losses import information

_TEMPERATURE = 2.0


def geometry(context: Context) -> ProbeResult:
    """Return alignment, uniformity (Wang and Isola, arXiv 2005.10242) and isotropy of the vectors of pairs.

    Alignment is the mean squared distance of the two sides of a pair, uniformity the logarithm of the mean of
    exp(-2 distance squared) between unlike texts; lower is better for both. Isotropy is the participation ratio of the
    covariance's eigenvalues in shares of the width: 1 where all directions are used alike.
    """
    pairs = context.material.pairs()
    queries = context.embed([query for query, _ in pairs]).astype(np.float64)
    documents = context.embed([document for _, document in pairs], "document").astype(np.float64)
    apart = ((queries - documents) ** 2).sum(axis=1)
    unlike = (documents @ documents.T)[np.triu_indices(len(documents), 1)]
    eigenvalues = np.linalg.eigvalsh(np.cov(documents, rowvar=False)).clip(min=0)
    figures = {
        "uniformity": float(np.log(np.mean(np.exp(-_TEMPERATURE * (2 - 2 * unlike))))),
        "alignment": float(apart.mean()),
        "isotropy": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / len(eigenvalues)),
        "mean cosine of unlike texts": float(unlike.mean()),
    }
    return ProbeResult(*next(iter(figures.items())), figures, notes=(f"{len(pairs)} pairs",))


def reconstruction(context: Context) -> ProbeResult:
    """Return what a vector tells of the other side of its pair, in nats for each token (losses.information).

    Negative where the vector disturbs the language model more than it tells, as before any training by reconstruction.
    """
    pairs = context.material.pairs()
    prompts = {side: prompt_of(context.model, side) for side in SIDES}
    found = information(context.model, pairs, prompts=prompts)
    forth, back = found.query_to_document, found.document_to_query
    tokens = forth.tokens + back.tokens
    figures = {
        "nats a token": (forth.nats * forth.tokens + back.nats * back.tokens) / tokens,
        "query to document, nats a token": forth.nats,
        "document to query, nats a token": back.nats,
    }
    return ProbeResult(*next(iter(figures.items())), figures, notes=(f"{len(pairs)} pairs, {tokens} predicted tokens",))
