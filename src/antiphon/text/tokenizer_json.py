"""Edits of a tokenizer.json as data: user text is text, and nothing is put before a piece.

The vocabulary is never edited, and written out it is nearly all of the file (33 MB for 262,000 tokens, seconds to parse
each time). So what is edited is the rest, and an edited tokenizer stands on the very model of the one it came from.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

_ADDED = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def parts_of(backend: Tokenizer) -> dict[str, Any]:
    """Return the tokenizer.json of a tokenizer but for its model.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> sorted(parts_of(Tokenizer(models.BPE())))[:3]
        ['added_tokens', 'decoder', 'normalizer']
    """
    shell = Tokenizer(models.BPE())
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        part = getattr(backend, name)
        if part is not None:
            setattr(shell, name, part)
    parts = json.loads(shell.to_str())
    del parts["model"]
    added = [
        {"id": index, **{name: getattr(token, name) for name in _ADDED}}
        for index, token in sorted(backend.get_added_tokens_decoder().items())
    ]
    return {**parts, "added_tokens": added}


def assembled(backend: Tokenizer, parts: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer of edited parts over the model of the one that they were taken from.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> backend = Tokenizer(models.WordLevel({"a": 0, "<s>": 1}, unk_token="a"))
        >>> backend.add_special_tokens(["<s>"])
        1
        >>> assembled(backend, plain_text(parts_of(backend))).encode("<s>").ids
        [1]
    """
    empty = json.loads(Tokenizer(models.BPE()).to_str())["model"]
    tokenizer = Tokenizer.from_str(json.dumps({**parts, "added_tokens": [], "model": empty}))
    tokenizer.model = backend.model
    for special, tokens in groupby(parts["added_tokens"], key=lambda token: bool(token["special"])):
        given = [AddedToken(**{name: token[name] for name in _ADDED}) for token in tokens]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(given)
    wanted = {token["id"]: token["content"] for token in parts["added_tokens"]}
    if {index: token.content for index, token in tokenizer.get_added_tokens_decoder().items()} != wanted:
        # ids that do not follow on those of the model, which only the whole file can say
        model = json.loads(backend.to_str())["model"]
        return Tokenizer.from_str(json.dumps({**parts, "model": model}))
    return tokenizer


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
