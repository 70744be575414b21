"""Where echo begins to pay, and how much the words of a prompt matter."""

from __future__ import annotations

import numpy as np

from antiphon.errors import ConfigError
from antiphon.evaluation.probes.context import Context, ProbeResult
from antiphon.evaluation.statistics import Sample, ndcg
from antiphon.model.flops import tokens_read
from antiphon.model.prompts import prompt_of
from antiphon.text.grammar import variants
from antiphon.text.template import template_of

LENGTHS = (8, 16, 32, 64, 128)
"""Words of a document."""
PROMPTS = 12
"""As many echo prompts as the paper tries (appendix D)."""


def length(context: Context) -> ProbeResult:
    """Return nDCG@10 of a search for documents cut to ever more words, the same documents at every length.

    The mean over lengths is the main figure.
    """
    pairs = context.material.pairs(words=LENGTHS[-1])
    queries = context.embed([query for query, _ in pairs])
    metrics, by_length = {}, []
    for words in LENGTHS:
        texts = [" ".join(document.split()[:words]) for _, document in pairs]
        found = ndcg(queries @ context.embed(texts, "document").T)
        counted = tokens_read(context.model, texts, prompt_of(context.model, "document"), "document")
        metrics[f"nDCG@10 at {words} words"] = float(found.mean())
        metrics[f"tokens at {words} words"] = float(np.mean(counted))
        by_length.append(found)
    each = np.mean(by_length, axis=0)
    main = {"nDCG@10 over lengths": float(each.mean())}
    sample = Sample("mean", tuple(map(str, range(len(each)))), each)
    note = f"{len(pairs)} documents; those that the model's max_tokens cut are no longer than it allows"
    return ProbeResult(*next(iter(main.items())), main | metrics, sample, (note,))


def prompts(context: Context) -> ProbeResult:
    """Return the spread of nDCG@10 over seeded prompts of the model's kind: echo where its template says a text twice.

    The standard deviation over prompts is the main figure (Echo, figure 3 and appendix D).
    """
    template = template_of(context.model)
    if template is None:
        raise ConfigError("This probe varies antiphon's templates, and this model has none.")
    kind = "echo" if template.copies("query") > 1 else "classical"
    pairs = context.material.pairs()
    scores = []
    for variant in variants(kind, PROMPTS, seed=context.material.seed):
        other = context.with_template(variant)
        queries = other.embed([query for query, _ in pairs])
        scores.append(float(ndcg(queries @ other.embed([text for _, text in pairs], "document").T).mean()))
    figures = {
        "deviation over prompts": float(np.std(scores, ddof=1)),
        "mean nDCG@10": float(np.mean(scores)),
        "lowest nDCG@10": min(scores),
        "highest nDCG@10": max(scores),
    }
    note = f"{PROMPTS} {kind} prompts of the seeded grammar, {len(pairs)} pairs"
    return ProbeResult(*next(iter(figures.items())), figures, notes=(note,), details={"scores": scores})
