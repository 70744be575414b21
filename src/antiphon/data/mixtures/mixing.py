"""A mixture: the data sets that the trainer gets, and what it is told about them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from antiphon.data.mixtures.mixture_settings import PART, PairSettings, check_together
from antiphon.data.pairs import LABEL, EvaluationTexts, Overlap, is_there, load, overlap, resolve, without
from antiphon.data.sampling import Sampling
from antiphon.data.skipped import Skipped
from antiphon.errors import DataError
from antiphon.model.prompts import has_place, prompt_of
from antiphon.text.template import Side

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The rows of one set that get the same instruction: a data set of the trainer."""

    name: str
    """That of its set, with #1, #2 ... behind it where there are several."""
    settings: PairSettings
    dataset: Dataset
    instruction: str | None
    symmetric: bool

    def sides(self) -> dict[str, Side]:
        """Return on which side each text column stands."""
        return {
            name: "query" if number == 0 or self.symmetric else "document"
            for number, name in enumerate(column for column in self.dataset.column_names if column != LABEL)
        }

    def instruction_of(self, number: int) -> str | None:
        """Return the instruction of a column, the anchor's being number 0; None for the model's own prompt."""
        if number == 0 or (self.symmetric and self.settings.symmetric_documents):
            return self.instruction
        return "" if self.symmetric else self.settings.document_instruction


@dataclass(frozen=True)
class Mixture:
    """Training pairs of several sets, and how the trainer is to take them."""

    parts: tuple[Part, ...]
    source_rows: Mapping[str, int]
    """How many rows each set's source has."""
    seed: int
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What was passed over in each set's source, and how often."""

    @classmethod
    def of(
        cls,
        settings: Sequence[PairSettings],
        *,
        seed: int,
        root: str | Path | None = None,
        limit: int | None = None,
        strict: bool = False,
    ) -> Mixture:
        """Read the sets and draw their rows; the same seed draws the same.

        `root` is the folder that relative sources are seen from; only the first `limit` rows of a source are read;
        `strict` refuses what would be passed over.

        Raises ConfigError for settings that do not go together; DataError for a source that cannot be read, or where
        no set is left.
        """
        check_together(settings)
        parts: list[Part] = []
        rows: dict[str, int] = {}
        skipped: dict[str, dict[str, int]] = {}
        missing: list[str] = []
        for one in settings:
            source = resolve(one.source, root)
            if not one.required and not is_there(source):
                missing.append(f"{one.name} ({source})")
                continue
            passed_over = Skipped(strict=strict)
            dataset = load(source, columns=one.columns, limit=limit, negatives=one.negatives, skipped=passed_over)
            skipped[one.name] = passed_over.counts
            rows[one.name] = len(dataset)
            parts += _split(one, _drawn(dataset, one, seed))
        if missing:
            logger.warning("%d sets of the mixture are not there and left out: %s.", len(missing), ", ".join(missing))
        if not parts:
            raise DataError(f"None of the {len(settings)} sets of the mixture is there; name their folder by root.")
        return cls(tuple(parts), rows, seed, skipped)

    @property
    def datasets(self) -> DatasetDict:
        """The trainer's `train_dataset`: a data set for each part, even where there is one."""
        from datasets import DatasetDict

        # views, because the trainer sets a transform on what it gets
        return DatasetDict({part.name: part.dataset.with_format(None) for part in self.parts})

    @property
    def router_mapping(self) -> dict[str, dict[str, Side]]:
        """The trainer's `router_mapping`: on which side each column of each data set stands."""
        return {part.name: part.sides() for part in self.parts}

    @property
    def weights(self) -> dict[str, float] | None:
        """The weight of each data set, None where the sets are taken by their rows."""
        if self.parts[0].settings.weight is None:
            return None
        rows = self._rows()
        return {
            part.name: (part.settings.weight or 0.0) * len(part.dataset) / rows[part.settings.name]
            for part in self.parts
        }

    @property
    def sampling(self) -> Sampling:
        """The trainer's `multi_dataset_batch_sampler`."""
        weights = self.weights
        return Sampling(
            names=tuple(part.name for part in self.parts), weights=None if weights is None else tuple(weights.values())
        )

    def prompts(self, model: SentenceTransformer) -> dict[str, dict[str, str]]:
        """Return the trainer's `prompts`: what each column of each data set is to get, in the model's form.

        An instruction that the model has no place for is left out, with a warning.
        """
        return {
            part.name: {
                column: prompt_of(model, side, instruction=_heard(model, side, part.instruction_of(number), part.name))
                for number, (column, side) in enumerate(part.sides().items())
            }
            for part in self.parts
        }

    @property
    def instructions(self) -> dict[str, str]:
        """What a model that is trained on the mixture is to say by itself, by the name of the prompt.

        `query` is the instruction with the largest share of the rows, or of the weight where the sets have one;
        `document` is that of the documents. Where there are several, each has the name of its data set too.
        """
        weights = self.weights or {part.name: float(len(part.dataset)) for part in self.parts}
        shares: dict[Side, dict[str, float]] = {"query": {}, "document": {}}
        for part in self.parts:
            instructions: dict[Side, str | None] = {
                "query": part.instruction,
                "document": part.settings.document_instruction,
            }
            for side, words in instructions.items():
                if words:
                    shares[side][words] = shares[side].get(words, 0.0) + weights[part.name]
        found: dict[str, str] = {side: max(of, key=lambda words: of[words]) for side, of in shares.items() if of}
        if len(shares["query"]) > 1:
            found |= {part.name: part.instruction for part in self.parts if part.instruction}
        return found

    def overlap(self, texts: Iterable[str], *, near: float, columns: Sequence[str] | None = None) -> dict[str, Overlap]:
        """Return what each data set has in common with the texts of an evaluation (see pairs.overlap)."""
        held = EvaluationTexts(texts, near=near)
        return {
            part.name: overlap(part.dataset, held, columns=[c for c in columns or part.sides() if c in part.sides()])
            for part in self.parts
        }

    def without(self, found: Mapping[str, Overlap]) -> Mixture:
        """Return the mixture without the rows that `overlap` found; DataError where nothing is left of a set."""
        parts = [replace(part, dataset=without(part.dataset, found[part.name])) for part in self.parts]
        for part in parts:
            if not len(part.dataset):
                raise DataError(f"Every pair of the set {part.name!r} shares a text with the evaluation; leave it out.")
        return replace(self, parts=tuple(parts))

    def _rows(self) -> dict[str, int]:
        """Return how many rows are taken of each set, over its parts."""
        rows: dict[str, int] = {}
        for part in self.parts:
            rows[part.settings.name] = rows.get(part.settings.name, 0) + len(part.dataset)
        return rows


def _heard(model: SentenceTransformer, side: Side, instruction: str | None, name: str) -> str | None:
    """Return the instruction that a column of a data set gets: none where the model has no place for it."""
    if not instruction or has_place(model, side):
        return instruction
    logger.warning(
        "The set %s is trained without its instruction %r: the model has no place for one on the %s side.",
        name,
        instruction,
        side,
        extra={"once": True},
    )
    return ""


def _drawn(dataset: Dataset, one: PairSettings, seed: int) -> Dataset:
    """Return the rows that ratio and cap leave, in their order."""
    kept = max(1, round(len(dataset) * one.drawn_ratio))
    kept = min(kept, one.cap or kept)
    if kept == len(dataset):
        return dataset
    key = np.frombuffer(one.name.encode(), dtype=np.uint8).tolist()  # so that a set draws the same beside any others
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(key)))
    return dataset.select(np.sort(generator.choice(len(dataset), size=kept, replace=False)))


def _split(one: PairSettings, dataset: Dataset) -> list[Part]:
    """Return the parts of a set: row n gets instruction n modulo their number."""
    number = len(one.instructions)
    if number == 1:
        return [Part(one.name, one, dataset, one.instructions[0], one.symmetries[0])]
    if len(dataset) < number:
        raise DataError(f"The set {one.name!r} has {len(dataset)} rows for {number} instructions; give it fewer.")
    return [
        Part(f"{one.name}{PART}{place + 1}", one, dataset.select(range(place, len(dataset), number)), *facts)
        for place, facts in enumerate(zip(one.instructions, one.symmetries, strict=True))
    ]
