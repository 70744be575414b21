"""What a model was trained on, beside the tasks that it is scored on: which rows hold a text of theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.data.pairs import EvaluationTexts, load, overlap
from antiphon.data.sampling import text_hashes

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainedOn:
    """Sets of training pairs, by the source's name."""

    sets: tuple[tuple[str, Dataset], ...]

    @classmethod
    def read(cls, sources: Sequence[str | Path]) -> TrainedOn:
        """Read pairs as training does. Raises DataError for a source that is missing, empty or has a bad line."""
        return cls(tuple((str(source), load(source)) for source in sources))

    @cached_property
    def identity(self) -> str:
        """A hash of all rows."""
        digest = hashlib.blake2b(digest_size=16)
        for _, pairs in self.sets:
            digest.update(text_hashes(pairs).tobytes())
        return digest.hexdigest()

    def notes(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Return what each set and the texts of a task have in common, in a sentence."""
        held = EvaluationTexts(dict.fromkeys(texts))
        return tuple(f"training data {source}: {overlap(pairs, held)}" for source, pairs in self.sets)
