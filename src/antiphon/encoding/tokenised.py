"""From texts to token ids, by the model's own first module; T tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from antiphon.errors import ConfigError
from antiphon.modules import frequencies_bound
from antiphon.text.tokens import check_texts

CHUNK = 64
"""Texts that are tokenised at a time: the module pads them to the longest of them."""
_PROBES = ("a", "Zebra 7", "\n(", "東京", "12")
"""Texts that begin with nothing in common: what their ids begin with alike stands before every text."""


@dataclass(frozen=True)
class Reading:
    """How texts are read: what `prompt` and `task` say to the first module."""

    prompt: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Tokens:
    """The ids of one text in full, and which of them are pooled."""

    ids: list[int]
    pooled: list[bool] | None
    """None where all are."""
    prompt_length: int | None = None
    """The tokens that sentence-transformers' pooling may leave out; None where it is told nothing."""


def read(module: Transformer, texts: Sequence[str], reading: Reading) -> list[Tokens]:
    """Return the tokens of texts as the module would hand them to the model, without padding."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found: dict[int, Tokens] = {}
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        features = module.preprocess([texts[number] for number in chunk], prompt=reading.prompt, task=reading.task)
        found.update(zip(chunk, _unpadded(features), strict=True))
    _check_lengths(module, found.values())
    return [found[number] for number in range(len(texts))]


def token_ids(model: SentenceTransformer, texts: Sequence[str], reading: Reading) -> list[list[int]]:
    """Return the ids that a model reads of texts (N lists), with template, prompt, special tokens and cutting.

    They are what an engine without the template is to be sent. Raises DataError for a text that is no string.

    Example:
        >>> import antiphon
        >>> ids = token_ids(antiphon.build("nano", "echo"), ["a text"], Reading(prompt="", task="query"))
        >>> len(ids), ids[0][0]
        (1, 1)
    """
    return [tokens.ids for tokens in read(model[0], check_texts(texts), reading)]


def _check_lengths(module: Transformer, rows: Iterable[Tokens]) -> None:
    """Raise a ConfigError where a text is so long that vectors beside it would change."""
    bound = frequencies_bound(module.config)
    longest = 0 if bound is None else max((len(row.ids) for row in rows), default=0)
    if bound is not None and longest > bound:
        raise ConfigError(
            f"A text has {longest} tokens, and beyond {bound} this {module.config.model_type} takes its rotary "
            f"frequencies by the longest text of a batch; set max_seq_length (now {module.max_seq_length}) so that "
            f"sequences have {bound} tokens at most."
        )


def shared_by_probes(module: Transformer, reading: Reading) -> list[int]:
    """Return the ids that stand before every text: the longest common beginning of unlike probes."""
    return common([tokens.ids for tokens in read(module, _PROBES, reading)])


def common(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest beginning that all have in common."""
    # of sorted rows the first and the last have in common what all have
    ordered = sorted(list(row) for row in rows)
    first, last = (ordered[0], ordered[-1]) if ordered else ([], [])
    length = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return list(first[:length])


def _unpadded(features: dict[str, Any]) -> list[Tokens]:
    """Return the rows of features without padding, whichever side it is on; flattened features are cut apart."""
    prompt_length = features.get("prompt_length")
    length = None if prompt_length is None else int(prompt_length)
    if "attention_mask" not in features:
        ids = features["input_ids"].reshape(-1).tolist()
        ends = features["cu_seq_lens_q"].tolist()
        return [Tokens(ids[start:end], None, length) for start, end in pairwise(ends)]
    mask_BT: torch.Tensor = features["attention_mask"].bool()
    counts = mask_BT.sum(dim=1).tolist()
    ids_rows = features["input_ids"][mask_BT].split(counts)
    if "pool_mask" not in features:
        return [Tokens(row.tolist(), None, length) for row in ids_rows]
    pooled_rows = features["pool_mask"].bool()[mask_BT].split(counts)
    return [Tokens(row.tolist(), pooled.tolist(), length) for row, pooled in zip(ids_rows, pooled_rows, strict=True)]
