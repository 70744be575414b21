"""Calibrate: raw vectors of unlabelled texts, streamed, become one affine map behind the pooling. N texts, D width."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.data.docstrings import evenly, of_standard_library
from antiphon.data.progress_bar import telling
from antiphon.data.sources import read
from antiphon.encoding.encoder import Encoder
from antiphon.errors import ConfigError
from antiphon.model import calibration
from antiphon.model.affine_maps import Moments, fit, parsed, record_of
from antiphon.model.build import check_embedder
from antiphon.model.prompts import encode_method, prompt_of
from antiphon.text.template import SIDES, Side
from antiphon.text.tokens import check_texts

BOTH = "both"
_SHIPPED, _SHORTEST, _LONGEST = 1000, 100, 800
"""How many docstrings stand in for texts that nobody gave, and between how many characters each has."""
_WINDOW = 256
"""Texts that are embedded between two batches of the moments."""


def calibrate(
    model: SentenceTransformer,
    texts: Iterable[str] | str | Path | None = None,
    *,
    method: str | Sequence[str] = "standardize",
    side: Literal["both", "query", "document"] = "both",
    field: str | Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
    progress: bool | None = None,
) -> SentenceTransformer:
    """Return the model with an affine map behind its pooling that is fitted on unlabelled texts; nothing is trained.

    `texts` are strings, a source as in `embed` (its text in `field`), or None for a thousand docstrings of this
    Python's standard library. `method` is one or more of METHODS (model/affine_maps.py), in a sequence or joined by
    "+", with a number behind a colon: "center+embed_filter:0.5". `side` says as what the texts are read; "both" as
    queries and as documents, where a model reads those differently. The map is a stock `Dense`; the model that was
    given stays as it is, and a calibration that it has is replaced. Memory does not grow with the texts. `progress`
    shows a bar, without it in interactive use only; `on_progress` takes its place.

    Raises ConfigError for a method or side that cannot be used, DataError for texts that are no strings, too few or all
    alike, ModelError for a vector that is not finite.

    Example:
        >>> import antiphon
        >>> texts = [f"A paragraph of number {number}, of {number % 7} kinds." for number in range(64)]
        >>> model = antiphon.calibrate(antiphon.build("nano", max_tokens=64), texts)
        >>> [type(module).__name__ for module in model]
        ['TemplateInput', 'SpanPooling', 'Dense']
    """
    check_embedder(model, "calibrate")
    steps = parsed(method)
    if side not in (BOTH, *SIDES):
        raise ConfigError(f"There is no side {side!r}; take one of {', '.join((BOTH, *SIDES))}.")
    source, stream = opened_texts(texts, field)
    raw = calibration.uncalibrated(model)
    encoder = Encoder(raw)
    sides = _sides(raw, side)
    moments = Moments(int(raw.get_embedding_dimension() or 0))
    digest, rows = hashlib.sha256(), 0
    given = None if on_progress is None else lambda done, _: on_progress(done)
    with telling("calibrating", progress, given) as tell:
        while window := list(islice(stream, _WINDOW)):
            for text in check_texts(window):
                encoded = text.encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "big") + encoded)
            for one in sides:
                vectors_ND = np.asarray(encode_method(encoder, one)(window), dtype=np.float64)
                moments.add(vectors_ND)
            rows += len(window)
            tell(rows, None)
    by = fit(method, moments, lambda: calibration.head_of(model))
    record = calibration.Calibration(
        record_of(steps), source, rows, digest.hexdigest(), side, calibration.place_in(model)
    )
    return calibration.calibrated(model, by, record)


def shipped_texts() -> list[str]:
    """Return the texts that a calibration is fitted on where none are given: docstrings, evenly over the library."""
    found = [one.text for one in of_standard_library() if _SHORTEST <= len(one.text) <= _LONGEST]
    return evenly(found, _SHIPPED)


def opened_texts(
    texts: Iterable[str] | str | Path | None, field: str | Sequence[str] | None
) -> tuple[str, Iterator[str]]:
    """Return where texts come from, in words, and the texts."""
    if texts is None:
        return f"docstrings of Python {platform.python_version()}", iter(shipped_texts())
    if isinstance(texts, str | Path):
        return Path(texts).name, (record.text for record in read(texts, field=field, keep=()))
    return "texts that were given", iter(texts)


def _sides(model: SentenceTransformer, asked: str) -> tuple[Side, ...]:
    """Return the sides as which texts are read: one where both read alike."""
    if asked != BOTH:
        return tuple(side for side in SIDES if side == asked)
    prompts = {side: prompt_of(model, side) for side in SIDES}
    ids = [model.preprocess(["a text"], prompt=prompts[side], task=side)["input_ids"].tolist() for side in SIDES]
    return SIDES if ids[0] != ids[1] else SIDES[:1]
