"""Are two models the same? The rule for every check of equality, and the health of a model's vectors.

On an untrained language model most unlike texts have a cosine above 0.999, so a cosine alone cannot fail. The rule
states two figures over at least 32 unlike texts: the lowest cosine, and the error against spread, which is
max |a_i - b_i| / median over i != j of |a_i - a_j|, all of unit vectors. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from antiphon.errors import ModelError, ParityError
from antiphon.model.prompts import encode_method
from antiphon.model.unit_vectors import norms
from antiphon.text.template import SIDES, Side

Vectors = npt.NDArray[np.float32]

FEWEST = 32
LIMITS: Mapping[str, float] = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}
"""The largest error against spread that counts as equal, by the coarser dtype of the two."""
NO_SPREAD = 1e-6
"""A spread below this is none."""
COLLAPSED = 0.99
"""A median cosine between unlike texts above this leaves a search little to go by."""


@dataclass(frozen=True)
class Parity:
    """How far two sets of vectors of the same texts are apart."""

    lowest_cosine: float
    error_against_spread: float
    limit: float
    texts: int

    @property
    def equal(self) -> bool:
        """Whether they count as the same."""
        return self.error_against_spread <= self.limit

    def __str__(self) -> str:
        verdict = "equal" if self.equal else "NOT equal"
        return (
            f"{verdict}: error against spread {self.error_against_spread:.2e} (limit {self.limit:.0e}), "
            f"lowest cosine {self.lowest_cosine:.6f}, {self.texts} texts"
        )


@dataclass(frozen=True)
class Health:
    """How alike the vectors of unlike texts are."""

    median_cosine: float
    highest_cosine: float

    @property
    def collapsed(self) -> bool:
        """Whether unlike texts can hardly be told apart."""
        return self.median_cosine > COLLAPSED

    def __str__(self) -> str:
        figures = f"unlike texts: median cosine {self.median_cosine:.4f}, highest {self.highest_cosine:.4f}"
        return f"collapsed, {figures}; try another template or pooling, or train it" if self.collapsed else figures


def unlike_texts() -> list[str]:
    """Return the texts that checks run on: short, long, empty-ish, code, numbers, other scripts; no two alike.

    Example:
        >>> from antiphon.parity import unlike_texts
        >>> len(unlike_texts()) >= 32
        True
    """
    return files("antiphon.model").joinpath("unlike_texts.txt").read_text(encoding="utf-8").splitlines()


def dtype_of(model: SentenceTransformer) -> str:
    """Return the name of the dtype that a model computes in, such as "float32".

    Example:
        >>> import antiphon
        >>> from antiphon.parity import dtype_of
        >>> dtype_of(antiphon.build("nano", dtype="float32"))
        'float32'
    """
    return str(model.dtype).removeprefix("torch.")


def limit_of(model: SentenceTransformer) -> float:
    """Return the largest error against spread that counts as equal for vectors of a model, by its dtype.

    Example:
        >>> import antiphon
        >>> from antiphon.parity import limit_of
        >>> limit_of(antiphon.build("nano", dtype="float32"))
        0.001
    """
    return LIMITS.get(dtype_of(model), LIMITS["float32"])


def compare(a: Vectors, b: Vectors, *, limit: float = LIMITS["float32"]) -> Parity:
    """Compare two (N, D) arrays row by row.

    Raises ParityError for fewer than 32 rows, other shapes, NaN, or rows so alike that they have no spread.

    Example:
        >>> import numpy as np
        >>> from antiphon.parity import compare
        >>> vectors = np.random.default_rng(0).normal(size=(32, 8))
        >>> compare(vectors, vectors).equal, compare(vectors, vectors[::-1]).equal
        (True, False)
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ParityError(
            f"The vectors have shapes {a.shape} and {b.shape}; two of the same (texts, width) are wanted."
        )
    if len(a) < FEWEST:
        raise ParityError(f"Parity was asked over {len(a)} texts; at least {FEWEST} unlike ones are needed.")
    a_ND, b_ND = (vectors.astype(np.float64) / norms(vectors, error=ParityError) for vectors in (a, b))
    spread = spread_of(a_ND)
    if spread < NO_SPREAD:
        raise ParityError("The vectors of unlike texts are all the same, so there is no spread to measure an error by.")
    error = float(np.linalg.norm(a_ND - b_ND, axis=-1).max()) / spread
    return Parity(float((a_ND * b_ND).sum(-1).min()), error, limit, len(a))


def spread_of(unit_ND: npt.NDArray[Any]) -> float:
    """Return the median distance between two rows of (N, D) unit vectors.

    Example:
        >>> import numpy as np
        >>> from antiphon.parity import spread_of
        >>> float(spread_of(np.array([[1.0, 0.0], [-1.0, 0.0]])))
        2.0
    """
    apart_NN = np.linalg.norm(unit_ND[:, None] - unit_ND[None], axis=-1)
    return float(np.median(apart_NN[~np.eye(len(unit_ND), dtype=bool)]))


def between(
    a: SentenceTransformer | str | Path, b: SentenceTransformer | str | Path, *, texts: Sequence[str] | None = None
) -> Parity:
    """Compare two models, or folders of models, over the same texts, on the query and the document side.

    The figures are those of the worse side; the limit is that of the coarser dtype.

    Example:
        >>> import antiphon
        >>> from antiphon.parity import between
        >>> model = antiphon.build("nano", dtype="float32")
        >>> between(model, model).equal
        True
    """
    from antiphon.model.checkpoint import load  # a folder is loaded here only, and checkpoint stands above this module

    chosen = list(texts) if texts is not None else unlike_texts()
    models = [load(model) if isinstance(model, str | Path) else model for model in (a, b)]
    limit = max(map(limit_of, models))
    sides = [compare(*(encode(model, chosen, side=side) for model in models), limit=limit) for side in SIDES]
    return max(sides, key=lambda side: side.error_against_spread)


def encode(model: SentenceTransformer, texts: Sequence[str], *, side: Side = "query", batch_size: int = 32) -> Vectors:
    """Return (N, D) float32 vectors by sentence-transformers' own encode; ModelError where one is not finite.

    Example:
        >>> import antiphon
        >>> from antiphon.parity import encode
        >>> encode(antiphon.build("nano"), ["sort a list"], side="document").shape
        (1, 256)
    """
    raw = encode_method(model, side)(list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
    vectors: Vectors = np.asarray(raw, dtype=np.float32)
    check_finite(vectors, texts, str(model.dtype))
    return vectors


def check_finite(vectors_ND: Vectors, texts: Sequence[str], dtype: str) -> None:
    """Raise a ModelError that names the first text whose vector holds NaN or an infinity.

    Example:
        >>> import numpy as np
        >>> from antiphon.parity import check_finite
        >>> check_finite(np.zeros((1, 4), dtype=np.float32), ["sort a list"], "float32")
    """
    if np.isfinite(vectors_ND).all():
        return
    bad = np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))
    raise ModelError(
        f"The vector of {texts[bad[0]]!r:.80} is not finite in {dtype.removeprefix('torch.')} ({len(bad)} of "
        f"{len(vectors_ND)} such vectors); load the model with dtype='bfloat16' or 'float32', and if it is not finite "
        "there either, its weights are broken."
    )


def health(vectors: Vectors) -> Health:
    """Return how alike the (N, D) vectors of unlike texts are; ParityError where one is NaN.

    Example:
        >>> import numpy as np
        >>> from antiphon.parity import health
        >>> health(np.random.default_rng(0).normal(size=(32, 64))).collapsed
        False
    """
    unit_ND = vectors.astype(np.float64) / norms(vectors, error=ParityError)
    cosines = (unit_ND @ unit_ND.T)[~np.eye(len(unit_ND), dtype=bool)]
    return Health(float(np.median(cosines)), float(cosines.max()))
