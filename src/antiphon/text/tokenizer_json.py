"""Edits of a tokenizer.json as data: user text is text, and nothing is put before a piece."""

from __future__ import annotations

from typing import Any


def plain_text(raw: dict[str, Any]) -> dict[str, Any]:
    """Mark every added token with a visible character as special, so that `encode_special_tokens` makes text of it.

    Runs of white space that a tokenizer holds as added tokens stay what they are: they are ordinary text.
    """
    added = [{**token, "special": token["special"] or bool(token["content"].strip())} for token in raw["added_tokens"]]
    return {**raw, "added_tokens": added, "truncation": None, "padding": None}


def without_prefix(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer.json that puts nothing before a text (Metaspace, byte-level and normalizer prefixes off)."""
    return {
        **raw,
        "normalizer": _without_prepend(raw["normalizer"]),
        "pre_tokenizer": _never_prepending(raw["pre_tokenizer"]),
    }


def _without_prepend(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if normalizer is None or normalizer["type"] == "Prepend":
        return None
    if normalizer["type"] == "Sequence":
        kept = [_without_prepend(part) for part in normalizer["normalizers"]]
        return {**normalizer, "normalizers": [part for part in kept if part is not None]}
    return normalizer


def _never_prepending(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if pre_tokenizer is None:
        return None
    if pre_tokenizer["type"] == "Sequence":
        return {**pre_tokenizer, "pretokenizers": [_never_prepending(part) for part in pre_tokenizer["pretokenizers"]]}
    off: dict[str, dict[str, Any]] = {
        "Metaspace": {"prepend_scheme": "never"},
        "ByteLevel": {"add_prefix_space": False},
    }
    return {**pre_tokenizer, **off.get(pre_tokenizer["type"], {})}
