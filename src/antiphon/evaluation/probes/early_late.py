"""Whether a vector holds the early part of a text, and whether that part knows of the late one (Echo, section 3).

Two triples are joined, halves A and B, into a query [A, B], a text that belongs to it [A+, B+], and one that does not:
with the early part exchanged, [A-, B] (S1), or the late one, [A, B-] (S2). The probe counts how often the query is
nearer to the text that belongs to it; chance is a half. A method that reads only one end fails one structure, so their
mixture tells. The span probe pools only what A says in the second copy: in S2 that can tell the texts apart only where
early tokens know of late ones; under a causal mask the first time that A is said they cannot, whatever the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers.util import batch_to_device

from antiphon.errors import ConfigError
from antiphon.evaluation.probes.context import Context, ProbeResult, cosines
from antiphon.evaluation.probes.material import Triple
from antiphon.evaluation.statistics import Numbers, Sample
from antiphon.model.prompts import prompt_of
from antiphon.model.unit_vectors import unit
from antiphon.text.template import fills_slots, template_of

_BATCH = 32


def joined(triples: Sequence[Triple]) -> list[tuple[Triple, Triple]]:
    """Return triple 2 n with triple 2 n + 1; an odd one at the end has no partner."""
    return list(zip(triples[::2], triples[1::2], strict=False))


def texts_of(a: Triple, b: Triple) -> dict[str, tuple[str, str]]:
    """Return (early part, late part) of the query, the text that belongs to it, and the negatives of S1 and S2."""
    return {
        "query": (a.query, b.query),
        "positive": (a.positive, b.positive),
        "S1": (a.negative, b.query),
        "S2": (a.query, b.negative),
    }


def early_late(context: Context) -> ProbeResult:
    """Return the accuracies on S1, S2 and their mixture; the mixture is the main figure."""
    every = [texts_of(*pair) for pair in joined(context.material.triples())]
    vectors = {role: context.embed([" ".join(texts[role]) for texts in every]) for role in every[0]}
    near = cosines(vectors["query"], vectors["positive"])
    right = {name: (near > cosines(vectors["query"], vectors[name])).astype(np.float64) for name in ("S1", "S2")}
    return _finding(right)


def _finding(right: dict[str, Numbers]) -> ProbeResult:
    both = np.concatenate(list(right.values()))
    ids = tuple(f"{name}-{number}" for name, values in right.items() for number in range(len(values)))
    metrics = {f"accuracy {name}": float(values.mean()) for name, values in right.items()}
    return ProbeResult(
        "accuracy of the mixture",
        float(both.mean()),
        {"accuracy of the mixture": float(both.mean()), **metrics},
        Sample("mean", ids, both),
        (f"{len(both) // len(right)} texts of each structure; chance is 0.5",),
    )


def span(context: Context) -> ProbeResult:
    """Return the accuracy on S2 where only the early part of the pooled copy is pooled.

    Raises ConfigError where the model does not mark what is pooled.
    """
    template = template_of(context.model)
    if not fills_slots(context.model) or template is None:
        raise ConfigError("This probe needs a model that marks what it pools; build it with pooling mean.")
    every = [texts_of(*pair) for pair in joined(context.material.triples())]
    vectors = {role: _early(context, [texts[role] for texts in every]) for role in ("query", "positive", "S2")}
    right = (cosines(vectors["query"], vectors["positive"]) > cosines(vectors["query"], vectors["S2"])).astype(float)
    sample = Sample("mean", tuple(map(str, range(len(right)))), right)
    words = "the second copy" if template.copies("query") > 1 else "the only copy, which cannot know of the late part"
    main = {"accuracy of the early span": sample.score()}
    return ProbeResult(*next(iter(main.items())), main, sample, (f"pooled: the early part of {words}; chance is 0.5",))


@torch.inference_mode()
def _early(context: Context, parts: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return the mean states (N, D) over the tokens of the early part, as the last copy says it."""
    module, prompt, out = context.model[0], prompt_of(context.model, "query"), []
    context.model.eval()
    for start in range(0, len(parts), _BATCH):
        batch = parts[start : start + _BATCH]
        whole = module.preprocess([" ".join(part) for part in batch], prompt=prompt, task="query")
        alone = module.preprocess([early for early, _ in batch], prompt=prompt, task="query")
        mask = torch.zeros_like(whole["pool_mask"])
        for row in range(len(batch)):
            places = whole["pool_mask"][row].nonzero()[:, 0]
            ids, early = (features["input_ids"][row][features["pool_mask"][row] == 1] for features in (whole, alone))
            # without EOS; where the two parts meet tokens may merge, and those are left out
            most = min(len(ids), len(early)) - 1
            same = int((ids[:most] == early[:most]).int().cumprod(dim=0).sum())
            mask[row, places[: max(same, 1)]] = 1
        features = batch_to_device({**whole, "pool_mask": mask}, context.model.device)
        out.append(context.model[1](module(features))["sentence_embedding"].float().cpu().numpy())
    return unit(np.concatenate(out))
