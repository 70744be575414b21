"""The plan of an epoch: rows, batches and tokens of each set, counted before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from antiphon.data.mixtures.mixing import Mixture, Part
from antiphon.data.sampling import Draws, text_hashes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SAMPLE = 64


@dataclass(frozen=True)
class SetPlan:
    """What one set adds to an epoch; its parts, where it has several instructions, are counted together."""

    name: str
    source_rows: int
    rows: int
    """Those that ratio, cap and overlap leave."""
    batches: int
    """Global batches in an epoch."""
    available: int
    """Global batches that one pass over the rows gives; with fewer than `batches` the set is begun again."""
    tokens_per_row: float | None
    """Mean over a sample, all columns, with the template, instructions and copies; None where no model was given."""
    fingerprint: str
    """A hash of all texts, in order."""
    ratio: float = 1.0
    """The share of the full set that its settings want."""
    sampled: bool = False
    """Whether the source was that share already, so that nothing was drawn."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """What was passed over in its source, and how often."""


@dataclass(frozen=True)
class MixturePlan:
    """An epoch over a mixture."""

    batch_size: int
    """Rows of a global batch."""
    sets: tuple[SetPlan, ...]

    @property
    def batches(self) -> int:
        """Global batches in an epoch."""
        return sum(one.batches for one in self.sets)

    @property
    def tokens_per_batch(self) -> float | None:
        """Mean tokens of a global batch over the epoch; None where no model was given."""
        counted = [(one.batches, one.tokens_per_row) for one in self.sets if one.tokens_per_row is not None]
        if len(counted) < len(self.sets) or not self.batches:
            return None
        return self.batch_size * sum(batches * tokens for batches, tokens in counted) / self.batches


def plan(
    mixture: Mixture, batch_size: int, *, model: SentenceTransformer | None = None, seed: int | None = None
) -> MixturePlan:
    """Count an epoch over a mixture with global batches of `batch_size` rows; tokens too where a model is given.

    `seed` is the trainer's, the mixture's own without it. Raises DataError where no set fills a batch.

    Example:
        >>> from antiphon.mixtures import Mixture, plan, settings_of
        >>> from antiphon.pairs import Pair, to_dataset, write
        >>> path = write(to_dataset(Pair(f"query {n}", f"document {n}") for n in range(40)), "pairs.jsonl")
        >>> mixture = Mixture.of(settings_of([{"name": "a set", "source": str(path)}], "a mixture"), seed=1)
        >>> plan(mixture, 16).batches
        2
    """
    weights = mixture.weights
    draws = Draws(
        [part.dataset for part in mixture.parts],
        batch_size,
        seed=mixture.seed if seed is None else seed,
        names=[part.name for part in mixture.parts],
        weights=None if weights is None else list(weights.values()),
    )
    tokens = [None] * len(mixture.parts) if model is None else _tokens(mixture, model)
    sets: dict[str, list[int]] = {}
    for number, part in enumerate(mixture.parts):
        sets.setdefault(part.settings.name, []).append(number)
    return MixturePlan(
        batch_size, tuple(_set_plan(mixture, name, draws, numbers, tokens) for name, numbers in sets.items())
    )


def _set_plan(
    mixture: Mixture, name: str, draws: Draws, numbers: Sequence[int], tokens: Sequence[float | None]
) -> SetPlan:
    digest = hashlib.blake2b(digest_size=16)
    rows = [len(mixture.parts[number].dataset) for number in numbers]
    for number in numbers:
        digest.update(text_hashes(mixture.parts[number].dataset).tobytes())
    counted = [
        (count, mean) for count, mean in zip(rows, (tokens[n] for n in numbers), strict=True) if mean is not None
    ]
    return SetPlan(
        name=name,
        source_rows=mixture.source_rows[name],
        rows=sum(rows),
        batches=sum(draws.shares[number] for number in numbers),
        available=sum(draws.available[number] for number in numbers),
        tokens_per_row=sum(count * mean for count, mean in counted) / sum(rows) if counted else None,
        fingerprint=digest.hexdigest(),
        ratio=mixture.parts[numbers[0]].settings.ratio,
        sampled=mixture.parts[numbers[0]].settings.sampled,
        skipped=mixture.skipped.get(name, {}),
    )


def _tokens(mixture: Mixture, model: SentenceTransformer) -> list[float | None]:
    prompts = mixture.prompts(model)
    return [_tokens_per_row(part, prompts[part.name], model) for part in mixture.parts]


def _tokens_per_row(part: Part, prompts: dict[str, str], model: SentenceTransformer) -> float:
    """Return the mean number of tokens that a row of this data set costs the encoder."""
    picked = np.unique(np.linspace(0, len(part.dataset) - 1, num=_SAMPLE, dtype=int))
    rows = part.dataset.with_format(None).select(picked)
    total = 0
    for column, side in part.sides().items():
        texts = [text for text in rows[column] if text]
        if texts:
            features = model.preprocess(texts, prompt=prompts[column], task=side)
            total += int(features["attention_mask"].sum())
    return total / len(rows)
