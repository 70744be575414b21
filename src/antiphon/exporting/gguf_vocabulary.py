"""The vocabulary of a GGUF file: the base's own tokenizer, by llama.cpp's names. V rows of the embeddings.

Such a file holds tokens and merges and, by name, how a text is split before they act; it holds no template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from antiphon.errors import ModelError
from antiphon.exporting.gguf_weights import library

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = {"type": "ByteLevel", "add_prefix_space": False}
UNKNOWN_SPLIT = "default"


def _split(pattern: str) -> list[dict[str, Any]]:
    return [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}]


SPLITS: Mapping[str, list[dict[str, Any]]] = {
    "gpt-2": [{**_BYTES, "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {**_BYTES, "use_regex": True}],
    "llama-bpe": [*_split(_WORDS % r"\p{N}{1,3}"), {**_BYTES, "use_regex": False}],
    "qwen2": [*_split(_WORDS % r"\p{N}"), {**_BYTES, "use_regex": False}],
}
"""How a text is split before byte-level merges act, as tokenizer.json has it, by llama.cpp's names."""
_NORMALIZED = {"qwen2": {"type": "NFC"}}
"""Normalizers that llama.cpp does not have but that leave texts in composed form, as most are, alone."""


@dataclass(frozen=True)
class Vocabulary:
    """What is written of a tokenizer."""

    split: str
    """One of SPLITS, or UNKNOWN_SPLIT."""
    reads_texts: bool
    """Whether llama.cpp's own ids of a text are the tokenizer's."""
    tokens: list[str]
    types: list[int]
    merges: list[str]


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """Return the vocabulary of a byte-level BPE tokenizer for embeddings of `rows` rows.

    Raises ModelError for a tokenizer of another kind.
    """
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    split = _split_name(raw)
    if raw["model"]["type"] != "BPE" or split is None:
        raise ModelError(
            f"A GGUF file is written for byte-level BPE tokenizers and this is a {raw['model']['type']} with "
            f"{(raw['pre_tokenizer'] or {}).get('type', 'no')} pre-tokenizer; use llama.cpp's own converter."
        )
    kinds = library().TokenType
    by_id = {index: (token, kinds.NORMAL) for token, index in raw["model"]["vocab"].items()}
    for added in raw["added_tokens"]:
        by_id[added["id"]] = (added["content"], kinds.CONTROL if added["special"] else kinds.USER_DEFINED)
    listed = [by_id.get(index, (f"[PAD{index}]", kinds.UNUSED)) for index in range(rows)]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in raw["model"]["merges"]]
    return Vocabulary(
        split=split,
        reads_texts=split != UNKNOWN_SPLIT and raw["normalizer"] in (None, _NORMALIZED.get(split)),
        tokens=[token for token, _ in listed],
        types=[int(kind) for _, kind in listed],
        merges=merges,
    )


def write_vocabulary(
    writer: Any, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase, *, bos: bool, eos: bool
) -> None:
    """Write the vocabulary, and whether llama.cpp opens texts with BOS and ends them with EOS."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if isinstance(index, int) and index < len(vocabulary.tokens):
            add(index)
    writer.add_add_bos_token(bos)
    writer.add_add_eos_token(eos)
    writer.add_add_space_prefix(False)


def _split_name(raw: Mapping[str, Any]) -> str | None:
    """Return the name of how a text is split, UNKNOWN_SPLIT for a byte-level way without one, None for other ways."""
    whole = raw["pre_tokenizer"] or {}
    steps = whole.get("pretokenizers", [whole])
    for name, wanted in SPLITS.items():
        same = len(steps) == len(wanted) and all(
            known.items() <= step.items() for known, step in zip(wanted, steps, strict=True)
        )
        if same:
            return name
    return UNKNOWN_SPLIT if any(step.get("type") == "ByteLevel" for step in steps) else None
