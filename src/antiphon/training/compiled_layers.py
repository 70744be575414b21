"""Layers compiled for training, forward and backward: taken where they are as near to float32 as the layers themselves.

N texts, D width of a vector.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from antiphon import compat
from antiphon.encoding.check import TIMES, Distance, Judge, Vectors
from antiphon.errors import ConfigError, ModelError
from antiphon.model.compiling import COMPILED, keep_compiled
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.layers import layers_of
from antiphon.model.parity import limit_of
from antiphon.training.losses.packer import SHORT_TEXTS, Packer, column_of, numbers_of, padded_vectors

AUTOCAST: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What a stage's passes compute in, by its precision, where that is not the weights' own dtype."""
_OPTIONS = {"fallback_random": True}
"""Dropout draws the numbers that it would draw without the compiler, whose own take three times as long on a CPU."""
_GRADIENT: Mapping[bool, float] = {False: 1e-3, True: 0.25}
"""How far a gradient may be from that in float32 in any case, in its norm, by whether passes compute in 16 bits: there
SmolLM2's own layers are off by 0.03 to 0.22, by the texts, and compiled ones by 0.03 to 0.12; a fault is near 1."""

logger = logging.getLogger(__name__)


@contextmanager
def compiled_layers(model: SentenceTransformer, packer: Packer | None, precision: str) -> Iterator[None]:
    """Have a model's layers compiled within the block where it is in training mode; they are plain elsewhere.

    Vectors and gradients of a few texts are judged first: where they cannot be made, or are farther from float32 than
    the layers as they are by more than `TIMES`, the layers run as they are, with a warning. What was built is kept in
    the user's cache. Raises ConfigError for a decoder whose layers cannot be told.
    """
    try:
        layers = layers_of(model[0].model)
    except ModelError as error:
        raise ConfigError(
            "The layers of this decoder cannot be told, so none can be compiled; leave compile out."
        ) from error
    keep_compiled()
    passes, began = _Passes(model, packer, AUTOCAST.get(precision)), perf_counter()
    for layer in layers:
        compat.run_compiled(layer, _when(passes, layer), **COMPILED, options=_OPTIONS)
    try:
        reason = passes.difference()
        if reason is None:
            logger.info("The layers are compiled, after %.1f s.", perf_counter() - began)
        else:
            logger.warning("The layers are not compiled, because %s; they run as they are.", reason)
            _run_plainly(layers)
        yield
    finally:
        _run_plainly(layers)


def _when(passes: _Passes, layer: nn.Module) -> Callable[[], bool]:
    return lambda: layer.training or passes.compiled


def _run_plainly(layers: nn.ModuleList) -> None:
    for layer in layers:
        compat.run_plainly(layer)


@dataclass
class _Passes:
    """Forward and backward passes over a few texts, without dropout: with compiled layers where `compiled` is set."""

    model: SentenceTransformer
    packer: Packer | None
    dtype: torch.dtype | None
    compiled: bool = False

    def difference(self) -> str | None:
        """Return in words why compiled layers cannot be taken, None where they can."""
        with evaluation_mode(self.model):
            limits = None
            if self.dtype is not None:  # before compiled ones, for a packer looks for its attention in its first pass
                theirs = Distance.between(self._vectors(SHORT_TEXTS), padded_vectors(self.model, SHORT_TEXTS))
                limits = theirs.limits(limit_of(self.model))
            check = Judge(self.model, padded_vectors, SHORT_TEXTS).check(self._compiled_vectors, limits=limits)
            if check.reason is not None:
                return check.reason
            return self._difference_of_gradients()

    def _difference_of_gradients(self) -> str | None:
        """Return in words how far compiled gradients are from those in float32; None where near enough.

        Weights of 16 bits have no gradient in float32: there the vectors alone are judged.
        """
        if self.model.dtype != torch.float32:
            return None
        plain = self._gradients()
        truth = plain if self.dtype is None else self._gradients(exact=True)
        theirs = _apart(plain, truth)
        del plain
        with self._compiled():
            apart = _apart(self._gradients(), truth)
        limit = max(_GRADIENT[self.dtype is not None], TIMES["largest"] * theirs)
        if apart <= limit:
            return None
        own = f"limit {limit:.0e}; the layers as they are: {theirs:.1e}"
        return f"their gradient is off from that in float32 by {apart:.1e} of its norm ({own})"

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        self.compiled = True
        try:
            yield
        finally:
            self.compiled = False

    def _compiled_vectors(self, texts: Sequence[str]) -> Vectors:
        with self._compiled():
            return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        return numbers_of(self._embedded(texts).detach())

    def _embedded(self, texts: Sequence[str], *, exact: bool = False) -> torch.Tensor:
        """Return vectors (N, D) with a gradient, as a step makes them, or, `exact`, in the weights' dtype."""
        column = column_of(self.model, texts)
        narrow = None if exact else self.dtype
        cast = nullcontext() if narrow is None else torch.autocast(self.model.device.type, narrow)
        with cast, torch.enable_grad():
            if self.packer is not None and self.packer.takes([column]):
                return self.packer.embed(self.model, [column])[0]
            vectors: torch.Tensor = self.model(column)["sentence_embedding"]
            return vectors

    def _gradients(self, *, exact: bool = False) -> list[torch.Tensor | None]:
        """Return the gradient of what is trained, for a fixed direction of every vector."""
        vectors_ND = self._embedded(SHORT_TEXTS, exact=exact).float()
        directions_ND = torch.cos(torch.arange(vectors_ND.numel(), device=vectors_ND.device)).view_as(vectors_ND)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        found: Any = torch.autograd.grad((vectors_ND * directions_ND).sum(), trained, allow_unused=True)
        return list(found)


def _apart(ours: Sequence[torch.Tensor | None], truth: Sequence[torch.Tensor | None]) -> float:
    """Return how far gradients are from others, in the norm of these; infinite where they are of other weights."""
    if [one is None for one in ours] != [one is None for one in truth]:
        return math.inf
    pairs = [(a, b) for a, b in zip(ours, truth, strict=True) if a is not None and b is not None]
    apart = sum(float((a - b).double().norm() ** 2) for a, b in pairs)
    norm = sum(float(b.double().norm() ** 2) for _, b in pairs)
    return math.sqrt(apart / norm) if norm and math.isfinite(apart / norm) else math.inf
