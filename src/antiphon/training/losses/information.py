"""How much a vector tells about the other side of its pair, in nats for each token.

Shapes: B batch, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from antiphon.errors import DataError
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.prompts import prompt_of
from antiphon.text.template import SIDES, Side
from antiphon.text.tokens import Specials
from antiphon.training.losses.collating import ContentPreprocessor
from antiphon.training.losses.decoding import CONTENT_MASK, cross_entropy, prepare, vectors
from antiphon.training.losses.head import Head, borrowed_head, embedding_of
from antiphon.training.losses.vocabulary import CHUNK


@dataclass(frozen=True)
class InformationFigures:
    """One direction: the cross-entropy of a side without and with the other side's vector, in nats per token."""

    without: float
    """The model's own language modelling loss of the text after BOS (after EOS where the family has no BOS)."""
    given: float
    """The loss of the same tokens with the vector in that token's place."""
    tokens: int
    """Tokens that were predicted; the same ones in both."""

    @property
    def nats(self) -> float:
        """Return what the vector gives: negative where it disturbs more than it tells."""
        return self.without - self.given

    @property
    def bits(self) -> float:
        """Return the same in bits."""
        return self.nats / math.log(2)


@dataclass(frozen=True)
class Information:
    """Both directions of a set of pairs."""

    query_to_document: InformationFigures
    document_to_query: InformationFigures


@torch.no_grad()
def information(
    model: SentenceTransformer,
    pairs: Sequence[tuple[str, str]],
    *,
    prompts: Mapping[Side, str] | None = None,
    batch_size: int = 16,
) -> Information:
    """Measure what the vectors of (query, document) pairs tell about the other side.

    Both losses come from one decode, causal and at the same positions; only position 0 differs: the vector, or the
    embedding of the token that opens every text of the family. `prompts` maps a side to what sentence-transformers
    gets as `prompt`; by default what `encode_query` and `encode_document` would take.

    Raises DataError where there are no pairs, or no token on a side.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import information
        >>> found = information(antiphon.build("nano"), [("sort a list", "Return a sorted list.")])
        >>> found.query_to_document.tokens
        5
    """
    if not pairs:
        raise DataError("There are no pairs to measure information on.")
    given = {side: prompt_of(model, side) if prompts is None else prompts.get(side, "") for side in SIDES}
    prepare(model)
    with evaluation_mode(model), borrowed_head(model) as head:
        return _measure(model, head, _batches(model, pairs, given, batch_size))


_Batch = dict[Side, dict[str, torch.Tensor]]


def _batches(
    model: SentenceTransformer, pairs: Sequence[tuple[str, str]], prompts: Mapping[Side, str], batch_size: int
) -> Iterator[_Batch]:
    preprocess = ContentPreprocessor(model)
    for start in range(0, len(pairs), batch_size):
        columns = zip(*pairs[start : start + batch_size], strict=True)
        yield {
            side: batch_to_device(preprocess(list(texts), prompt=prompts[side], task=side), model.device)
            for side, texts in zip(SIDES, columns, strict=True)
        }


def _measure(model: SentenceTransformer, head: Head, batches: Iterator[_Batch]) -> Information:
    sums = {side: torch.zeros(3, dtype=torch.float64) for side in SIDES}  # without, given, tokens; of the decoded side
    neutral_D = _neutral(model)
    for batch in batches:
        for source, target in (SIDES, SIDES[::-1]):
            anchor_BD = vectors(model, batch[source])
            starts = (neutral_D.expand_as(anchor_BD), anchor_BD)
            losses = [
                cross_entropy(model, head, start, batch[target], reduction="sum", chunk_size=CHUNK) for start in starts
            ]
            tokens = batch[target][CONTENT_MASK].sum()
            sums[target] += torch.stack([*losses, tokens]).double().cpu()
    return Information(query_to_document=_figures(sums["document"]), document_to_query=_figures(sums["query"]))


def _neutral(model: SentenceTransformer) -> torch.Tensor:
    """Return the embedding (D,) of the token that tells nothing."""
    specials = Specials.of(model.tokenizer)
    opening = specials.closing if specials.bos is None else specials.bos
    embedded_D: torch.Tensor = embedding_of(model[0])(torch.tensor([opening], device=model.device))[0]
    return embedded_D


def _figures(sums: torch.Tensor) -> InformationFigures:
    without, given, tokens = sums.tolist()
    if not tokens:
        raise DataError("Every text of one side is empty, so there is no token to measure information on.")
    return InformationFigures(without / tokens, given / tokens, int(tokens))
