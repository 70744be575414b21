"""From texts to vectors for all tasks: each text once, kept on disk by a hash of model, prompt and text, and counted.

N texts, D width.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.encoding import Compile, Encoder
from antiphon.evaluation.vector_store import Vectors, VectorStore
from antiphon.model.unit_vectors import norms
from antiphon.text.template import Side

Encode = Callable[[Sequence[str], str, Side], Vectors]
"""Texts, prompt and side to (N, D)."""

_WINDOW = 512
"""Texts that are embedded between two commits and two reports of progress, the longest first."""


class ModelEncode:
    """Embeds texts with a model, which is prepared when the first texts come, or before."""

    def __init__(self, model: SentenceTransformer, *, budget: int | None = None, compile: Compile = False) -> None:
        self._make = partial(Encoder, model, budget=budget, compile=compile)
        self._encoder: Encoder | None = None

    def prepare(self) -> Encoder:
        """Return the Encoder, made and checked at the first call."""
        if self._encoder is None:
            self._encoder = self._make()
        return self._encoder

    def __call__(self, texts: Sequence[str], prompt: str, side: Side) -> Vectors:
        """Return (N, D)."""
        vectors: Vectors = np.asarray(self.prepare().encode(texts, prompt=prompt, task=side), dtype=np.float32)
        return vectors


def preparation_of(encode: Encode) -> Callable[[], object] | None:
    """Return what makes a function of this kind ready before its first texts, None for one that needs nothing."""
    return encode.prepare if isinstance(encode, ModelEncode) else None


class CountingEmbedder:
    """Embeds each distinct text of a prompt and side once; counts texts and seconds."""

    def __init__(
        self,
        encode: Encode,
        *,
        store: VectorStore | None = None,
        on_texts: Callable[[Sequence[str]], None] | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        """Take what embeds, and what makes it ready: a model is checked once, which is no cost of the first texts."""
        self._encode, self._prepare = encode, prepare or (lambda: None)
        self._store = store
        self._tell = on_texts or (lambda texts: None)
        self.embedded = 0
        """Texts that went through the model."""
        self.seconds = 0.0
        """Seconds that they took."""
        self.seen: dict[tuple[str, Side], dict[str, None]] = {}
        """The distinct texts by prompt and side."""

    def embed(self, texts: Sequence[str], prompt: str, side: Side) -> Vectors:
        """Return (N, D) vectors in the order of the texts; ModelError for one that is NaN, infinite or zero."""
        self.seen.setdefault((prompt, side), {}).update(dict.fromkeys(texts))
        keys = {text: _key(text, prompt, side) for text in dict.fromkeys(texts)}
        known = {} if self._store is None else self._store.get(list(keys.values()))
        self._tell([text for text, key in keys.items() if key in known])
        wanted = sorted((text for text, key in keys.items() if key not in known), key=len, reverse=True)
        if wanted:
            self._prepare()
        for start in range(0, len(wanted), _WINDOW):
            window = wanted[start : start + _WINDOW]
            began = time.perf_counter()
            vectors_ND = self._encode(window, prompt, side)
            self.seconds += time.perf_counter() - began
            self.embedded += len(window)
            norms(vectors_ND, window)  # or there would be a score of broken vectors
            fresh = {keys[text]: vector for text, vector in zip(window, vectors_ND, strict=True)}
            if self._store is not None:
                self._store.put(fresh)
            known.update(fresh)
            self._tell(window)
        return np.stack([known[keys[text]] for text in texts])


def _key(text: str, prompt: str, side: Side) -> bytes:
    # lengths keep a prompt that ends as a text begins apart from its neighbour
    return hashlib.blake2b(f"{side} {len(prompt)} {prompt}{text}".encode(), digest_size=16).digest()
