"""How many layers to keep: the depth at which halves of one text, or a query and its document, find each other best.

N texts, B texts of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device
from torch import nn
from transformers import PreTrainedModel

from antiphon import compat
from antiphon.data.docstrings import evenly
from antiphon.encoding.calibrate import opened_texts
from antiphon.errors import ConfigError, DataError
from antiphon.model.affine_maps import Moments, fit
from antiphon.model.build import check_embedder
from antiphon.model.calibration import uncalibrated
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.layers import layers_of
from antiphon.model.prompts import prompt_of
from antiphon.model.unit_vectors import unit
from antiphon.text.template import Side
from antiphon.text.tokens import check_texts

_MOST, _FEWEST, _WORDS, _BATCH = 200, 16, 8, 16
"""Texts that are read, that there must be, words that each has at least, texts of a forward."""


@dataclass(frozen=True)
class LayerChoice:
    """The number of layers to keep, and what every number was worth."""

    layers: int
    """The best; of several alike the fewest."""
    scores: Mapping[int, float]
    """Mean reciprocal rank of a text's second half among all second halves, for its first, or of a query's document
    among all documents; by the layers kept."""
    texts: int
    """Texts that were cut in two, or pairs."""


def choose_layers(
    model: SentenceTransformer,
    texts: Iterable[str] | str | Path | None = None,
    *,
    field: str | Sequence[str] | None = None,
    side: Side = "document",
    calibrated: bool = False,
    pairs: Iterable[tuple[str, str]] | None = None,
) -> LayerChoice:
    """Choose how many of a model's first layers to keep, by unlabelled texts: `build(..., layers=choice.layers)`.

    Each text is cut in two by its words, both halves are embedded at every depth in one pass, with the final norm and
    the model's own pooling behind, and the depth is taken at which halves of one text rank first for each other.
    `calibrated` says that the vectors are to be standardised (`calibrate`), so that they are before they are compared:
    the depth is another one then. `texts` are strings, a source as in `embed`, or None for a thousand docstrings of
    this Python's standard library; texts of fewer than 8 words say nothing here, and 200 of the others are read.

    `pairs` of queries and documents, in the place of texts, are labels: the depth is taken at which a query's document
    ranks first, each embedded as its side; of several pairs with one document the first counts.

    Raises DataError for fewer than 16 such texts or pairs, ConfigError where both are given, ModelError for a decoder
    whose layers cannot be told.

    Example:
        >>> import antiphon
        >>> texts = [f"paragraph {n} is about the number {n * n} and what {n} is good for" for n in range(20)]
        >>> sorted(antiphon.choose_layers(antiphon.build("nano", max_tokens=64), texts).scores)
        [1, 2, 3, 4, 5]
    """
    check_embedder(model, "choose_layers")
    if pairs is not None and texts is not None:
        raise ConfigError("Layers are chosen by texts or by pairs, and both are given; leave one of them away.")
    first, second = zip(*(_halves(opened_texts(texts, field)[1]) if pairs is None else _judged(pairs)), strict=True)
    plain = uncalibrated(model)
    asked = layer_vectors(plain, first, side=side if pairs is None else "query")
    found = layer_vectors(plain, second, side=side if pairs is None else "document")
    scores = {layers: reciprocal_rank(asked[layers], found[layers], standardized=calibrated) for layers in asked}
    best = max(scores, key=lambda layers: (scores[layers], -layers))
    return LayerChoice(best, scores, len(first))


def layer_vectors(
    model: SentenceTransformer, texts: Sequence[str], *, side: Side = "document"
) -> dict[int, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return (N, D) vectors for every number of layers that could be kept, from one pass of the whole model.

    What a layer gave is put in its place as the only one, so that norm and pooling are the model's own.
    """
    decoder = model[0].model
    number = len(layers_of(decoder))
    found: dict[int, list[torch.Tensor]] = {layers: [] for layers in range(1, number + 1)}
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            given = model.preprocess(list(texts[start : start + _BATCH]), prompt=prompt_of(model, side), task=side)
            features = batch_to_device(dict(given), model.device)
            with _kept(decoder) as outputs:
                found[number].append(model(dict(features))["sentence_embedding"])
            for layers in range(1, number):
                with _replayed(decoder, outputs[layers - 1]):
                    found[layers].append(model(dict(features))["sentence_embedding"])
    return {layers: torch.cat(parts).double().cpu().numpy() for layers, parts in found.items()}


def reciprocal_rank(
    first_ND: np.ndarray[Any, np.dtype[np.float64]],
    second_ND: np.ndarray[Any, np.dtype[np.float64]],
    *,
    standardized: bool = False,
) -> float:
    """Return the mean of 1 / r, r being the rank of the second half of a text, by cosine, for its first.

    With `standardized` both go through the map that `calibrate` would fit on them before. Equal cosines rank behind.
    """
    both = np.concatenate([first_ND, second_ND])
    if standardized:
        moments = Moments(both.shape[1])
        moments.add(both)
        by = fit("standardize", moments, lambda: np.empty((0, 0)))  # which does not ask for a vocabulary head
        both = both @ by.weight.T + by.bias
    both = unit(both)
    similarity_NN = both[: len(first_ND)] @ both[len(first_ND) :].T
    ranks = (similarity_NN >= np.diag(similarity_NN)[:, None]).sum(axis=1)
    return float(np.mean(1 / ranks))


def _halves(texts: Iterator[str]) -> list[tuple[str, str]]:
    """Return first and second halves of texts evenly over those that are long enough."""
    words = [one for one in (text.split() for text in check_texts(list(texts))) if len(one) >= _WORDS]
    if len(words) < _FEWEST:
        raise DataError(
            f"{len(words)} of the texts have {_WORDS} words or more, and at least {_FEWEST} are needed to choose "
            "layers by; give longer texts or more of them."
        )
    return [(" ".join(one[: len(one) // 2]), " ".join(one[len(one) // 2 :])) for one in evenly(words, _MOST)]


def _judged(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return query and document of pairs evenly over those with a document of their own."""
    by_document = {document: query for query, document in reversed(list(pairs))}
    if len(by_document) < _FEWEST:
        raise DataError(
            f"The pairs have {len(by_document)} documents, and at least {_FEWEST} are needed to choose layers by; give "
            "more of them."
        )
    return [(query, document) for document, query in evenly(list(by_document.items()), _MOST)]


@contextmanager
def _kept(decoder: PreTrainedModel) -> Iterator[list[Any]]:
    """Collect what every layer returns, in order."""
    outputs: list[Any] = []
    handles = [
        layer.register_forward_hook(lambda module, given, output: outputs.append(output))
        for layer in layers_of(decoder)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replayed(decoder: PreTrainedModel, output: Any) -> Iterator[None]:
    """Let a decoder have one layer, which returns what another one did."""
    layers, config = layers_of(decoder), decoder.config
    number = config.num_hidden_layers
    only = compat.copied_module(layers[0], compat.children_of(layers[0]), forward=lambda *given, **named: output)
    try:
        decoder.add_module("layers", nn.ModuleList([only]))
        config.num_hidden_layers = 1
        yield
    finally:
        decoder.add_module("layers", layers)
        config.num_hidden_layers = number
