"""A model as mteb wants to call it; what a text is prompted with was settled before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from antiphon.evaluation.embedder import CountingEmbedder
from antiphon.evaluation.vector_store import Vectors
from antiphon.text.template import Side


class TaskEncoder:
    """mteb's encoder protocol for one task: its prompts are fixed, and mteb's own lookup is never asked.

    mteb would put a prompt that is a plain string on both sides and give an unknown task a sentence of its own.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        embedder: CountingEmbedder,
        prompts: Mapping[Side, str],
        *,
        name: str,
        revision: str,
    ) -> None:
        self._model = model
        self._embedder = embedder
        self._prompts = prompts
        # mteb names every local model alike; a revision by content keeps any file of its apart from another model's
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": name, "revision": revision})

    def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **kwargs: Any) -> Vectors:
        """Return (N, D) vectors of a data loader's texts; without a prompt type they are queries."""
        texts = [text for batch in inputs for text in batch["text"]]
        side: Side = "document" if prompt_type == PromptType.document else "query"
        return self._embedder.embed(texts, self._prompts[side], side)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return all similarities (N, M), by the model's own measure."""
        return self._model.similarity(np.asarray(embeddings1), np.asarray(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the similarities of rows (N,), by the model's own measure."""
        return self._model.similarity_pairwise(np.asarray(embeddings1), np.asarray(embeddings2))
