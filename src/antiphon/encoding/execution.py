"""Which execution mode, attention call and layers, an Encoder takes, by what the judge says of their vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from antiphon.compat import multiplies
from antiphon.encoding.check import ROUNDED, Check, Judge, Vectors
from antiphon.encoding.finished import finished
from antiphon.encoding.kernels.attention import CALLS
from antiphon.encoding.kernels.linear import LINEARS
from antiphon.encoding.kernels.tiled_products import fits
from antiphon.encoding.processor import has
from antiphon.encoding.runner import Runner
from antiphon.encoding.tokenised import Reading
from antiphon.errors import ConfigError
from antiphon.model.build import check_embedder
from antiphon.model.prompts import prompt_of

Attention = Literal["sdpa", "matmul", "varlen"]
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
"""What sentence-transformers' `encode` can make of vectors."""

logger = logging.getLogger(__name__)


def check_settings(model: object, attention: str | None, linear: str | None, budget: int | None) -> None:
    """Raise a ModelError for what is no model, a ConfigError for a setting that there is not or a budget below 1."""
    check_embedder(model, "Encoder")
    if attention is not None and attention not in CALLS:
        raise ConfigError(f"There is no attention {attention!r}; take one of {', '.join(CALLS)}.")
    if linear not in (None, "plain", *LINEARS):
        raise ConfigError(f"There is no linear {linear!r}; take one of plain, {', '.join(LINEARS)}.")
    if budget is not None and budget < 1:
        raise ConfigError(f"budget is {budget}; a whole number of at least 1 token is wanted.")


def embedding_by(runner: Runner, *, share: bool = True) -> Callable[[Sequence[str]], Vectors]:
    """Return what embeds texts by a runner, read as the model reads them by itself."""

    def embed(texts: Sequence[str]) -> Vectors:
        model = runner.model
        vectors = runner.run(texts, Reading(prompt_of(model, None, prompt_name=None), None), share=share)
        return finished(vectors, False, model.truncate_dim)

    return embed


def choose_attention(runner: Runner, judge: Judge) -> Check:
    """Find the attention call whose vectors are near enough; return its check, or the last with a reason."""
    while (check := judge.check(embedding_by(runner))).reason and runner.refuse():
        logger.info("The next attention call is taken, because with this one %s.", check.reason)
    return check


def check_layers(runner: Runner, judge: Judge) -> Check:
    """Return the worst check of other layers.

    Where they compile, also of rows of several texts, and of texts without a shared prefix.
    """
    limits = ROUNDED if runner.linear == "float8" else None
    checks = [judge.check(embedding_by(runner), limits=limits)]
    if runner.compiled and checks[0].reason is None:
        checks.append(judge.check(embedding_by(runner), times=4, limits=limits))
        checks.append(judge.check(embedding_by(runner, share=False), limits=limits))
    return max(checks, key=lambda check: (check.reason is not None, check.error or 0.0))


def linear_for(model: SentenceTransformer) -> str:
    """Return the linear layers that go best with compiled ones: packed where a CPU multiplies 16 bits.

    On a CPU with tiles only if our own products take some of them: oneDNN reads plain weights there as fast as packed
    ones, and a compiler calls plain products itself.
    """
    narrow = model.device.type == "cpu" and model.dtype == torch.bfloat16
    packs = narrow and multiplies(model.device, model.dtype)
    if packs and has("amx_bf16"):
        packs = any(type(layer) is nn.Linear and fits(layer) for layer in model.modules())
    return "prepacked" if packs else "plain"
