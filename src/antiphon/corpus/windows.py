"""Texts into batches and vectors, some at a time: the same texts always fall into the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.corpus.codec import cut
from antiphon.encoding import Encoder
from antiphon.model.prompts import encode_method
from antiphon.model.unit_vectors import Vectors, unit
from antiphon.text.template import Side

WINDOW = 8
"""Batches that are sorted by length together: progress is told as often."""
BATCH_TOKENS = 4096
"""Tokens of a forward pass: fixed, since a run that goes on must pack as the one before it did, to the same bytes."""

Item = TypeVar("Item")


def chunks_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last of what is left."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def windows(
    encoder: Encoder, texts: Sequence[str], names: Sequence[str], *, side: Side, batch_size: int
) -> Iterator[Vectors]:
    """Yield the unit vectors of some batches at a time; `names` are what messages call the texts."""
    encode = encode_method(encoder, side)
    size = batch_size * WINDOW
    for first in range(0, len(texts), size):
        yield unit(encode(list(texts[first : first + size])), names[first : first + size])


@dataclass(frozen=True)
class ShardEncoder:
    """Gives a shard's texts their vectors, the same ones whoever calls it."""

    encoder: Encoder
    side: Side
    batch_size: int
    width: int
    """Dimensions that are kept, the first of them."""

    def __call__(
        self, texts: Sequence[str], names: Sequence[str], on_texts: Callable[[int], None] | None = None
    ) -> Vectors:
        """Return unit vectors (N, width); `on_texts` is told how many texts are done."""
        found: list[Vectors] = []
        for window in windows(self.encoder, texts, names, side=self.side, batch_size=self.batch_size):
            found.append(cut(window, self.width))
            if on_texts is not None:
                on_texts(sum(map(len, found)))
        return np.concatenate(found)


@dataclass(frozen=True)
class EncodeSettings:
    """How a shard is embedded: what makes a `ShardEncoder` beside the model."""

    side: Side
    batch_size: int
    width: int
    batch_tokens: int
    compile: bool

    def encoder(self, model: SentenceTransformer) -> ShardEncoder:
        """Return what gives a shard its vectors."""
        encoder = Encoder(model, budget=self.batch_tokens, compile=self.compile)
        return ShardEncoder(encoder, self.side, self.batch_size, self.width)
