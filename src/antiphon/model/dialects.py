"""How servers of embeddings are asked and how they answer: OpenAI's way, and those of TEI and Ollama.

N texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Texts = Sequence[str] | Sequence[Sequence[int]]
"""Texts, or the token ids of each."""


@dataclass(frozen=True)
class Dialect:
    """A protocol. Its functions raise KeyError, TypeError or ValueError for an answer of another shape."""

    about: str
    """The path that tells which model is served."""
    path: str
    """The path that embeds."""
    body: Callable[[str, Texts], dict[str, Any]]
    """From the model's name and texts to a request."""
    vectors: Callable[[Any], list[list[float]]]
    """From an answer to the vectors, N lists of D."""
    served: Callable[[Any], tuple[str, str]]
    """From what `about` answers to the model's name and the engine's."""
    takes_ids: bool = True


def _first_model(answer: Any) -> tuple[str, str]:
    first = answer["data"][0]
    return str(first["id"]), OWNERS.get(str(first.get("owned_by", "")).lower(), "")


def _in_order(answer: Any) -> list[list[float]]:
    return [row["embedding"] for row in sorted(answer["data"], key=lambda row: int(row["index"]))]


def _bare(answer: Any) -> list[list[float]]:
    if not isinstance(answer, list):
        raise TypeError("no list of vectors")
    return answer


OWNERS: Mapping[str, str] = {
    "vllm": "vllm",
    "llamacpp": "llamacpp",
    "library": "ollama",
    "ollama": "ollama",
    "infinity": "infinity",
    "antiphon": "antiphon",
}
"""The engine by what `/models` calls a model's owner."""
OPENAI = Dialect(
    "/models",
    "/embeddings",
    lambda model, texts: {"model": model, "input": list(texts), "encoding_format": "float"},
    _in_order,
    _first_model,
)
TEI = Dialect(
    "/info",
    "/embed",
    lambda model, texts: {"inputs": list(texts)},
    _bare,
    lambda answer: (str(answer["model_id"]), "tei"),
)
OLLAMA = Dialect(
    "/api/tags",
    "/api/embed",
    lambda model, texts: {"model": model, "input": list(texts)},
    lambda answer: list(answer["embeddings"]),
    lambda answer: (str(answer["models"][0]["name"]), "ollama"),
    takes_ids=False,
)
DIALECTS = (OPENAI, TEI, OLLAMA)


def candidates(address: str) -> list[tuple[str, Dialect]]:
    """Return what an address may stand for, the likeliest first: what stands before a dialect's paths, and the dialect.

    Example:
        >>> [root for root, _ in candidates("http://localhost:8000")][:2]
        ['http://localhost:8000/v1', 'http://localhost:8000']
        >>> [root for root, _ in candidates("http://localhost:8000/v1/embeddings")]
        ['http://localhost:8000/v1']
    """
    bare = address.rstrip("/")
    for dialect in (OLLAMA, OPENAI, TEI):
        if bare.endswith(dialect.path):
            return [(bare.removesuffix(dialect.path), dialect)]
    has_path = "/" in bare.split("://", 1)[-1]
    return ([] if has_path else [(f"{bare}/v1", OPENAI)]) + [(bare, dialect) for dialect in DIALECTS]
