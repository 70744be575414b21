"""How unit vectors are stored: as floats of 32 or 16 bits, bytes or bits. N vectors, D width, S stored width.

int8 cuts the range of each dimension, as it was on texts for calibration, into 256 equal steps, whose middle is read
back; what lies outside takes the outermost. binary keeps the sign of each dimension, eight to a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from antiphon.errors import ConfigError, ModelError, among
from antiphon.model.unit_vectors import Vectors, unit

Precision = Literal["float32", "float16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
NUMBER_BITS: Mapping[str, int] = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}
_STEPS = 256


@dataclass(frozen=True)
class Ranges:
    """The least and the largest value of each dimension, over the texts that int8 is calibrated on."""

    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    @classmethod
    def of(cls, vectors_ND: Vectors) -> Ranges:
        """Take those of some vectors."""
        bounds = (vectors_ND.min(axis=0), vectors_ND.max(axis=0))
        return cls(*(tuple(float(value) for value in bound) for bound in bounds))

    @property
    def start_and_step(self) -> tuple[Vectors, Vectors]:
        """The beginning (D,) of each dimension's range and the width (D,) of a step."""
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (self.lowest, self.highest))
        return low, np.maximum((high - low) / _STEPS, np.float32(1e-9))

    def outside(self, vectors_ND: Vectors) -> float:
        """Return the share of numbers that lie outside."""
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (self.lowest, self.highest))
        return float(((vectors_ND < low) | (vectors_ND > high)).mean())


@dataclass(frozen=True)
class Codec:
    """Unit vectors into what is stored and back."""

    precision: Precision = "float32"
    ranges: Ranges | None = None
    """Of int8 alone."""

    def pack(self, vectors_ND: Vectors) -> npt.NDArray[Any]:
        """Return what is stored (N, S) of unit vectors."""
        return _PACK[self.precision](vectors_ND, self.ranges)

    def unpack(self, stored_NS: npt.NDArray[Any]) -> Vectors:
        """Return unit vectors (N, D), as near to those that were packed as the precision allows.

        Example:
            >>> codec = Codec("binary")
            >>> codec.unpack(codec.pack(unit(np.array([[3.0, -4.0, 1, 1, 1, 1, 1, 1]], dtype=np.float32)))).shape
            (1, 8)
        """
        return _UNPACK[self.precision](stored_NS, self.ranges)


def check_precision(precision: str, width: int) -> Precision:
    """Return a precision; ConfigError for one that does not exist, or bits that do not fill bytes."""
    known = next((name for name in PRECISIONS if name == precision), None)
    if known is None:
        raise ConfigError(f"There is no precision {precision!r}; {among(precision, PRECISIONS)}.")
    if known == "binary" and width % 8:
        raise ConfigError(f"binary stores eight dimensions in a byte, and {width} are no multiple of 8; cut them.")
    return known


def kept_width(width: int | None, truncate_dim: int | None) -> int:
    """Return how many dimensions of a model's vectors are kept; ConfigError for more than there are.

    Raises ModelError for a model that does not say how wide its vectors are.
    """
    if width is None:
        raise ModelError("The model does not say how wide its vectors are; end it with a pooling module that does.")
    if truncate_dim is None:
        return int(width)
    if not 1 <= truncate_dim <= width:
        raise ConfigError(f"truncate_dim is {truncate_dim}, and the model's vectors have {width} dimensions.")
    return truncate_dim


def cut(vectors_ND: Vectors, width: int) -> Vectors:
    """Return the first `width` dimensions of unit vectors at length 1 again, as Matryoshka training means them."""
    return vectors_ND if vectors_ND.shape[1] == width else unit(vectors_ND[:, :width])


def _of_ranges(ranges: Ranges | None) -> tuple[Vectors, Vectors]:
    if ranges is None:
        raise ConfigError("int8 vectors need the ranges of their dimensions, and there are none; embed anew.")
    return ranges.start_and_step


def _to_int8(vectors_ND: Vectors, ranges: Ranges | None) -> npt.NDArray[np.int8]:
    start_D, step_D = _of_ranges(ranges)
    steps_ND = np.clip(np.floor((vectors_ND - start_D) / step_D), 0, _STEPS - 1)
    shifted: npt.NDArray[np.int8] = (steps_ND - _STEPS // 2).astype(np.int8)
    return shifted


def _from_int8(stored_ND: npt.NDArray[Any], ranges: Ranges | None) -> Vectors:
    start_D, step_D = _of_ranges(ranges)
    middle_ND = stored_ND.astype(np.float32) + np.float32(_STEPS // 2 + 0.5)
    return unit(start_D + step_D * middle_ND)


def _from_bits(stored_NS: npt.NDArray[Any], ranges: Ranges | None) -> Vectors:
    bits_ND = np.unpackbits(stored_NS, axis=1)
    scale = np.float32(bits_ND.shape[1] ** -0.5)
    signed: Vectors = (2 * bits_ND.astype(np.float32) - 1) * scale
    return signed


_PACK: Mapping[Precision, Callable[[Vectors, Ranges | None], npt.NDArray[Any]]] = {
    "float32": lambda vectors_ND, ranges: vectors_ND.astype(np.float32),
    "float16": lambda vectors_ND, ranges: vectors_ND.astype(np.float16),
    "int8": _to_int8,
    "binary": lambda vectors_ND, ranges: np.packbits(vectors_ND > 0, axis=1),
}
_UNPACK: Mapping[Precision, Callable[[npt.NDArray[Any], Ranges | None], Vectors]] = {
    "float32": lambda stored_ND, ranges: stored_ND,
    "float16": lambda stored_ND, ranges: unit(stored_ND.astype(np.float32)),
    "int8": _from_int8,
    "binary": _from_bits,
}
