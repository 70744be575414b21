"""The nearest texts of a collection to each of some queries, block by block, with vectors kept for the next time.

Exact cosines, no index: a collection is gone through once, so memory grows with the queries alone. Q queries, N texts,
D width, K nearest.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from antiphon.corpus.codec import cut
from antiphon.encoding import Encoder
from antiphon.errors import DataError
from antiphon.files import clean, reason, write_whole
from antiphon.model.fingerprint import cache_key
from antiphon.model.prompts import encode_method, prompt_of
from antiphon.model.unit_vectors import is_unit, unit
from antiphon.text.template import Side

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

BLOCK = 8192
"""Texts that are encoded, kept and compared together."""
_QUERIES = 4096  # rows of a similarity matrix at once
NOTHING = -1
"""The id where fewer than K texts may be taken."""

logger = logging.getLogger(__name__)


class VectorSource:
    """Unit vectors of texts on one side under one instruction, from a folder where they were kept."""

    def __init__(
        self,
        encoder: Encoder,
        side: Side,
        *,
        instruction: str | None = None,
        cache: Path | None = None,
        width: int | None = None,
    ) -> None:
        """Take the model and what it is told; without an instruction it uses its own prompt of that side.

        `width` is how many of the first dimensions are kept, all without it.
        """
        self.encoder, self.side, self.cache, self.width = encoder, side, cache, width
        self.prompt = prompt_of(encoder.model, side, instruction=instruction)
        # what decides a vector: the weights and all else of the model, never its name or place
        self.key = f"{cache_key(encoder.model)} {side} {self.prompt!r}" if cache is not None else ""

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return (N, D) float32 unit vectors.

        Raises ModelError naming the text whose vector has no length.
        """
        vectors_ND = self._whole(texts)
        return vectors_ND if self.width is None else cut(vectors_ND, self.width)

    def _whole(self, texts: Sequence[str]) -> Vectors:
        file = None if self.cache is None else self.cache / f"{self._digest(texts)}.npy"
        kept = None if file is None else read_kept(file, (len(texts), None))
        if file is not None and kept is not None:
            if is_unit(kept, tolerance=1e-3):
                return kept.astype(np.float32)
            logger.warning("%s holds no vectors of length 1 and is made anew.", file)
        raw = encode_method(self.encoder, self.side)(list(texts), prompt=self.prompt)
        vectors_ND = unit(np.asarray(raw, dtype=np.float32), texts)
        if file is not None:
            write_kept(file, vectors_ND)
        return vectors_ND

    def _digest(self, texts: Sequence[str]) -> str:
        digest = hashlib.blake2b(self.key.encode(), digest_size=20)
        for text in texts:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()


@dataclass(frozen=True)
class Neighbours:
    """The K texts nearest to each query, nearest first."""

    ids: Ids
    """(Q, K) numbers of texts, NOTHING where there are no more."""
    cosines: Vectors
    """(Q, K)"""


class Nearest:
    """Keeps the K nearest of the texts that it is shown, block by block."""

    def __init__(self, queries_QD: Vectors, most: int, *, device: str | torch.device = "cpu") -> None:
        """Take the unit vectors of the queries, and K."""
        self.queries_QD, self.most, self.device = torch.from_numpy(queries_QD), most, device
        self.best_QK = torch.full((len(queries_QD), most), -torch.inf)
        self.ids_QK = torch.full((len(queries_QD), most), NOTHING)

    def show(self, vectors_ND: Vectors, first: int, forbidden: tuple[Ids, Ids]) -> None:
        """Compare the queries with a block of texts numbered from `first` on.

        `forbidden` are pairs of query and text, by number in the block, that are never taken.
        """
        block_ND = torch.from_numpy(vectors_ND).to(self.device)
        rows, texts = (torch.from_numpy(side) for side in forbidden)
        for start in range(0, len(self.queries_QD), _QUERIES):
            end = min(start + _QUERIES, len(self.queries_QD))
            cosines_QN = (self.queries_QD[start:end].to(self.device) @ block_ND.T).cpu()
            here = (rows >= start) & (rows < end)
            cosines_QN[rows[here] - start, texts[here]] = -torch.inf
            top_QK, places_QK = cosines_QN.topk(min(self.most, len(block_ND)), dim=1)
            both = torch.cat([self.best_QK[start:end], top_QK], dim=1)
            ids = torch.cat([self.ids_QK[start:end], places_QK + first], dim=1)
            self.best_QK[start:end], chosen = both.topk(self.most, dim=1)
            self.ids_QK[start:end] = ids.gather(1, chosen)

    def found(self) -> Neighbours:
        """Return what is nearest of all that was shown."""
        ids_QK = torch.where(self.best_QK.isinf(), NOTHING, self.ids_QK)
        return Neighbours(ids_QK.numpy(), self.best_QK.numpy())


def blocks(
    texts: Sequence[str],
    vectors: VectorSource,
    *,
    size: int = BLOCK,
    on_block: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Vectors]]:
    """Yield the number of the first text of each block of `size` texts, and the block's vectors."""
    for first in range(0, len(texts), size):
        block_ND = vectors(texts[first : first + size])
        if on_block is not None:
            on_block(len(block_ND))
        yield first, block_ND


def read_kept(file: Path, shape: tuple[int | None, ...]) -> npt.NDArray[np.floating] | None:
    """Return numbers that were kept, of a shape (None for any length); None where there are none, or not whole ones."""
    if not file.exists():
        return None
    try:
        kept: npt.NDArray[np.floating] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s cannot be read (%s) and is made anew.", file, error)
        return None
    if kept.ndim != len(shape) or any(n not in (None, length) for n, length in zip(shape, kept.shape, strict=True)):
        logger.warning("%s holds numbers of shape %s where %s is wanted and is made anew.", file, kept.shape, shape)
        return None
    return kept


def write_kept(file: Path, numbers: npt.NDArray[np.floating]) -> None:
    """Keep numbers in a file; DataError where that fails."""
    buffer = io.BytesIO()
    np.save(buffer, numbers)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        clean(file.parent)
        write_whole(file, buffer.getbuffer())
    except OSError as error:
        raise DataError(f"{file} could not be written ({reason(error)}); make room, or name another cache.") from error
