"""Whether the similarity of two sentences is over-estimated where their first halves agree (Echo, appendix E.2).

Sentences are cut in half by words; the tenth of the pairs whose first (second) halves are most alike is taken, and the
predicted rank is set against the rank that people gave. The paper takes "alike" from another embedder; here it is the
share of words that two halves have in common, so that nothing has to be downloaded and no model judges itself.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from antiphon.evaluation.probes.context import Context, ProbeResult, cosines

_SHARE = 0.1


def halves(context: Context) -> ProbeResult:
    """Return the mean excess of the predicted rank, in shares of all ranks, for both tenths, and their gap."""
    scored = context.material.scored()
    predicted = cosines(context.embed([one.first for one in scored]), context.embed([one.second for one in scored]))
    excess = (rankdata(predicted) - rankdata([one.gold for one in scored])) / len(scored)
    biases = {}
    for number, name in enumerate(("first", "second")):
        alike = np.array([_overlap(_half(one.first, number), _half(one.second, number)) for one in scored])
        chosen = np.argsort(-alike, kind="stable")[: max(int(_SHARE * len(scored)), 1)]
        biases[f"bias of {name} halves"] = float(excess[chosen].mean())
    gap = biases["bias of first halves"] - biases["bias of second halves"]
    notes = (f"{max(int(_SHARE * len(scored)), 1)} of {len(scored)} pairs on each side; 0 is no bias",)
    return ProbeResult("gap between halves", gap, {"gap between halves": gap, **biases}, notes=notes)


def _half(sentence: str, number: int) -> set[str]:
    words = sentence.lower().split()
    middle = (len(words) + 1) // 2
    return set(words[middle:] if number else words[:middle])


def _overlap(a: set[str], b: set[str]) -> float:
    """Return Jaccard's index of two sets of words."""
    return len(a & b) / len(a | b) if a | b else 0.0
