"""The texts that engines are compared on: 65 kinds, from unlike sentences to what only a server trips over."""

from __future__ import annotations

from antiphon.model.parity import unlike_texts

ODD = (
    "",
    " ",
    "\n",
    "a",
    ".",
    " leading space",
    "trailing space ",
    "  two in front and two behind  ",
    "\ttab in front",
    "line one\nline two\n\nline four",
    "windows\r\nline ends",
    "</s>",
    "a </s> in the middle",
    "<|im_end|>",
    "<|im_start|>user\nhello<|im_end|>",
    "<|endoftext|> and more",
    "[INST] a chat [/INST]",
    "cafe\u0301 and caf\u00e9",
    "ﬁ ligature, ½, ①, Ⅳ",
    "zero\u200bwidth\u200dspace\ufeff",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "שלום עולם, مرحبا",
    "ALL CAPITALS AND no capitals",
    "word " * 120,
    "A text that is far too long says the same again and again, and only its first part is read. " * 60,
)
"""What servers trip over; the last is longer than any of the folders takes."""


def texts() -> list[str]:
    """Return the 65 texts; the unlike ones first, the one that is too long last."""
    return [*unlike_texts(), *ODD]
