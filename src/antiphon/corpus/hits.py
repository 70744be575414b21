"""What a search gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DIGITS = 6
"""Digits of a score that count; the rest depends on the companions in a batch and must not order anything."""


@dataclass(frozen=True)
class Hit:
    """A text that was found, and its score: the cosine to the query, BM25, or what both were fused to."""

    id: str
    text: str
    score: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What is kept beside the text."""
