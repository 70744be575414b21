"""Scores of query and text by a cross-encoder, kept by its weights for the next time. N texts of a query."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from antiphon.corpus.neighbours import read_kept, write_kept
from antiphon.errors import ModelError, first_line
from antiphon.model.fingerprint import cache_key

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Scores = npt.NDArray[np.float64]
Asked = tuple[str, Sequence[str]]
"""A query and the texts that are scored beside it."""

_TOGETHER = 32
"""Queries that are scored, and kept, together: a run that died has lost no more."""


def open_rescorer(name: str) -> CrossEncoder:
    """Open a cross-encoder, a folder or one of the hub; ModelError where that fails."""
    from sentence_transformers import CrossEncoder

    try:
        return CrossEncoder(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{name} cannot be opened as a cross-encoder ({first_line(error):.200}); name a folder or one of the hub."
        ) from error


class Rescorer:
    """A cross-encoder, and a folder where its scores are kept."""

    def __init__(self, model: CrossEncoder, *, cache: Path | None = None) -> None:
        """Take the model; ModelError where it does not give one score for a pair."""
        labels = getattr(model.config, "num_labels", 1)
        if labels != 1:
            raise ModelError(
                f"The cross-encoder gives {labels} scores for a pair, and one is wanted; take one trained to rank."
            )
        self.model, self.cache = model, cache
        self.key = "" if cache is None else cache_key(model)

    def __call__(self, asked: Sequence[Asked]) -> Iterator[Scores]:
        """Yield the scores (N,) of each query's texts, in order."""
        for start in range(0, len(asked), _TOGETHER):
            block = asked[start : start + _TOGETHER]
            bounds = np.cumsum([len(texts) for _, texts in block])[:-1]
            yield from np.split(self._scored([(query, text) for query, texts in block for text in texts]), bounds)

    def _scored(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        file = None if self.cache is None else self.cache / f"{self._digest(pairs)}.npy"
        kept = None if file is None else read_kept(file, (len(pairs),))
        if kept is not None:
            return kept.astype(np.float64)
        scores = np.asarray(self.model.predict(list(pairs), show_progress_bar=False), dtype=np.float64)
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise ModelError(
                f"The cross-encoder's score of {pairs[first][1]!r:.80} is {scores[first]}; load it in float32."
            )
        if file is not None:
            write_kept(file, scores)
        return scores

    def _digest(self, pairs: Sequence[tuple[str, str]]) -> str:
        digest = hashlib.blake2b(f"{self.key} scores".encode(), digest_size=20)
        for text in (text for pair in pairs for text in pair):
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()
