"""What a caller hands in and gets back: each text once, and vectors as sentence-transformers' own `encode` gives them.

N texts, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import truncate_embeddings

from antiphon.encoding.check import Vectors


def plain(model: SentenceTransformer, texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts, all in one batch, by sentence-transformers' own encode."""
    raw = model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)
    return np.asarray(raw, dtype=np.float32)


def distinct(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.intp] | None]:
    """Return each text once, and where each of them all is among these; None where all are distinct."""
    number = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    if len(number) == len(texts):
        return list(texts), None
    return list(number), np.fromiter((number[text] for text in texts), dtype=np.intp, count=len(texts))


def finished(vectors: torch.Tensor, normalize: bool, truncate_dim: int | None) -> Vectors:
    """Return vectors as numpy's, cut and of length 1 where that is asked for, in sentence-transformers' order."""
    if truncate_dim is not None:
        vectors = truncate_embeddings(vectors, truncate_dim)
    if normalize:
        vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
    done: Vectors = vectors.float().numpy()
    return done
