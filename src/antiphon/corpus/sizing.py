"""What embedding many passages will take: hours, workers, storage and dollars, before anything is embedded.

A worker's speed is kept as floating point operations a second, so that one model's measured speed says what another, or
longer passages, will take: passages a second = operations a second / operations of a passage (model/flops.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from antiphon.corpus.codec import Precision, check_precision, kept_width
from antiphon.corpus.embedding_plan import EmbeddingPlan, Sizing, Worker
from antiphon.corpus.windows import BATCH_TOKENS, chunks_of, windows
from antiphon.data.skipped import Skipped
from antiphon.data.sources import TextSource, open_source
from antiphon.data.text_columns import Record
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, ModelError
from antiphon.model.flops import PUBLISHED, DecoderShape, forward_flops, shape_of, shape_of_decoder, tokens_read
from antiphon.model.origin import Origin
from antiphon.model.prompts import prompt_of
from antiphon.text.template import Side

PUBLISHED_TOKENS, PUBLISHED_MODEL = 512, "Qwen/Qwen3-0.6B"
PUBLISHED_PASSAGES: Mapping[str, int] = {"L4": 59, "A10G": 93, "A100": 250}
"""Passages of PUBLISHED_TOKENS a second that others report for Qwen3-Embedding-0.6B, whose decoder is that base's."""
PUBLISHED_DOLLARS = 2.8
"""What they report for a million of these passages, whatever the GPU."""
_SAMPLED, _LOOKED_AT = 1024, 20_000
"""Passages that are counted and timed, and those that they are drawn from where the number is given."""
_WARMING, _TIMED_TOGETHER, _SECONDS = 16, 256, 10.0


@dataclass(frozen=True)
class _Seen:
    """What looking at a source told of its passages."""

    passages: int
    sample: Sequence[Record]
    side: Side

    @property
    def text_bytes(self) -> float:
        return sum(len(one.text.encode()) + len(one.id.encode()) for one in self.sample) / len(self.sample)


def plan_embedding(  # noqa: PLR0913  (a public surface)
    model: SentenceTransformer | str,
    source: TextSource | None = None,
    *,
    field: str | Sequence[str] | None = None,
    id_field: str | None = None,
    side: Side = "document",
    precision: Precision = "float32",
    truncate_dim: int | None = None,
    sizing: Sizing | None = None,
) -> EmbeddingPlan:
    """Return what it takes to embed a source: nothing is written, and at most some hundred passages are embedded.

    Passages are counted in the source where `sizing` does not say how many; tokens on 1,024 of them, drawn evenly. The
    speed of this machine is measured on these for ten seconds, unless tokens a second are given. Without a source
    passages and tokens have to be given, and `model` may be the name of one whose weights are not here. Below that
    stand three GPUs by what others published of Qwen3-Embedding-0.6B at 512 tokens, taken as operations a second.

    Raises ConfigError for a number that is missing or not above 0, DataError for a bad source, ModelError for a model
    that is no decoder of transformers.

    Example:
        >>> plan = plan_embedding("Qwen/Qwen3-0.6B", sizing=Sizing(passages=1_000_000, tokens=512))
        >>> [(one.name, round(plan.hours(one), 1)) for one in plan.workers]
        [('L4, published', 4.7), ('A10G, published', 3.0), ('A100, published', 1.1)]
    """
    known = (sizing or Sizing()).checked()
    seen = None if source is None else _looked_at(source, field, id_field, known.passages, side)
    passages = known.passages if seen is None else seen.passages
    shape, width = _shape_and_width(model, truncate_dim)
    check_precision(precision, width)
    counted = _counted(model, seen) if known.tokens is None else [known.tokens]
    if passages is None or not counted:
        raise ConfigError("Without a source both are needed: how many passages, and how many tokens one has.")
    tokens = sum(counted) / len(counted)
    flops = sum(forward_flops(shape, count) for count in counted) / len(counted)
    plan = EmbeddingPlan(
        model if isinstance(model, str) else Origin.of(model).base or "the model", passages, tokens, flops, width,
        precision, None if seen is None else seen.text_bytes, known.within, (),
    )  # fmt: skip
    return replace(plan, workers=tuple(_workers(model, shape, seen, known, plan)))


def _workers(
    model: SentenceTransformer | str, shape: DecoderShape, seen: _Seen | None, known: Sizing, plan: EmbeddingPlan
) -> Iterator[Worker]:
    """Yield the worker whose speed is given or measured here, then those that others published."""
    if known.tokens_per_second is not None:
        yield Worker("as given", known.tokens_per_second / plan.tokens * plan.flops, known.price)
    elif isinstance(model, SentenceTransformer) and seen is not None:
        yield Worker(f"{model.device}, measured here", _measured(model, shape, seen), known.price)
    operations = forward_flops(PUBLISHED[PUBLISHED_MODEL], PUBLISHED_TOKENS)
    for card, speed in PUBLISHED_PASSAGES.items():
        yield Worker(f"{card}, published", speed * operations, speed * 3600 * PUBLISHED_DOLLARS / 1e6)


def _measured(model: SentenceTransformer, shape: DecoderShape, seen: _Seen) -> float:
    """Return the operations a second of a model here, over ten seconds of the sample or all of it."""
    encoder = Encoder(model, budget=BATCH_TOKENS)
    texts = [one.text for one in seen.sample]
    names = [one.id for one in seen.sample]
    list(windows(encoder, texts[:_WARMING], names[:_WARMING], side=seen.side, batch_size=_WARMING))
    done, began = 0, time.perf_counter()
    for chunk in chunks_of(range(len(texts)), _TIMED_TOGETHER):
        some = slice(chunk[0], chunk[-1] + 1)
        done += sum(map(len, windows(encoder, texts[some], names[some], side=seen.side, batch_size=32)))
        if time.perf_counter() - began > _SECONDS:
            break
    seconds = time.perf_counter() - began
    counted = tokens_read(model, texts[:done], prompt_of(model, seen.side), seen.side)
    return sum(forward_flops(shape, count) for count in counted) / seconds


def _looked_at(
    source: TextSource, field: str | Sequence[str] | None, id_field: str | None, passages: int | None, side: Side
) -> _Seen:
    """Count a source and draw a sample of it evenly (reservoir); where the number is given, of its beginning."""
    opened = open_source(source, field=field, id_field=id_field, keep=(), skipped=Skipped())
    generator, sample, number = random.Random(0), list[Record](), 0
    for number, record in enumerate(islice(opened.records(), None if passages is None else _LOOKED_AT), start=1):
        if len(sample) < _SAMPLED:
            sample.append(record)
        elif (place := generator.randrange(number)) < _SAMPLED:
            sample[place] = record
    generator.shuffle(sample)  # only the first of them may be timed
    return _Seen(number if passages is None else passages, sample, side)


def _counted(model: SentenceTransformer | str, seen: _Seen | None) -> Sequence[float]:
    if seen is None:
        return ()
    if isinstance(model, str):
        raise ConfigError(f"Only the name {model} is given, so no tokens are counted; give the tokens of a passage.")
    return tokens_read(model, [one.text for one in seen.sample], prompt_of(model, seen.side), seen.side)


def _shape_and_width(model: SentenceTransformer | str, truncate_dim: int | None) -> tuple[DecoderShape, int]:
    if isinstance(model, str):
        shape = shape_of(model)
        return shape, kept_width(shape.width, truncate_dim)
    backbone = getattr(model[0], "model", None)
    if not isinstance(backbone, PreTrainedModel):
        raise ModelError("This model is no decoder of transformers, whose operations the formula counts.")
    return shape_of_decoder(backbone), kept_width(model.get_embedding_dimension(), truncate_dim)
