"""Vectors at length 1, or a sentence about the one that has none. Shapes: N vectors, D width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from antiphon.errors import AntiphonError, ModelError

Vectors = npt.NDArray[np.float32]


def norms(
    vectors_ND: npt.NDArray[np.floating], names: Sequence[str] | None = None, *, error: type[AntiphonError] = ModelError
) -> npt.NDArray[np.float64]:
    """Return the lengths (N, 1) of vectors, in float64; raise `error`, naming the first, where one is 0 or not finite.

    `names` are what the vectors are called; without them it is the number of the row, from 0.

    Example:
        >>> import numpy as np
        >>> from antiphon.parity import norms
        >>> float(norms(np.array([[3.0, 4.0]]))[0, 0])
        5.0
    """
    norms_N1: npt.NDArray[np.float64] = np.linalg.norm(vectors_ND.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms_N1) & (norms_N1 > 0)))
    if len(bad):
        first = int(bad[0])
        who = f"Vector {first}" if names is None else f"The vector of {names[first]!r:.80}"
        what = "zero" if norms_N1[first, 0] == 0 else "not finite"
        raise error(
            f"{who} is {what} ({len(bad)} of {len(norms_N1)} such vectors), so the model's output is broken: load it "
            "in float32, or look at it with `antiphon show --health`."
        )
    return norms_N1


def unit(vectors_ND: Vectors, names: Sequence[str] | None = None) -> Vectors:
    """Return vectors (N, D) at length 1; what `norms` raises.

    Example:
        >>> unit(np.array([[3.0, 4.0]], dtype=np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    scaled: Vectors = (vectors_ND / norms(vectors_ND, names)).astype(np.float32)
    return scaled


def is_unit(vectors_ND: Vectors, *, tolerance: float = 1e-2) -> bool:
    """Return whether all vectors (N, D) have length 1; the tolerance is wide enough for 16 bits.

    Example:
        >>> is_unit(np.array([[0.6, 0.8]], dtype=np.float32))
        True
    """
    return bool(np.allclose(np.linalg.norm(vectors_ND, axis=1), 1.0, atol=tolerance))


def apart(a_ND: Vectors, b_ND: Vectors) -> float:
    """Return the largest distance between a row of one set of vectors (N, D) and that of another, at length 1.

    Example:
        >>> one = np.array([[2.0, 0.0]], dtype=np.float32)
        >>> round(apart(one, one[:, ::-1]), 3)
        1.414
    """
    return float(np.linalg.norm(unit(a_ND) - unit(b_ND), axis=1).max())
