"""Vectors from a server that speaks OpenAI's `/v1/embeddings`: ours, vLLM, text-embeddings-inference, infinity.

N texts, D width.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from antiphon.errors import DataError, ParityError

_BATCH = 16
_TIMEOUT = 120.0
_ENDPOINT = "/embeddings"


def is_url(name: object) -> bool:
    """Return whether a name is the address of a server."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


class Endpoint(Protocol):
    """Whatever gives vectors of texts from elsewhere."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, D) vectors; DataError for texts that are refused."""
        ...


@dataclass(frozen=True)
class Server:
    """An address such as http://localhost:8000/v1, with or without `/embeddings`; without a path `/v1` is added."""

    address: str
    key: str | None = None
    """Sent as a bearer token."""

    @property
    def root(self) -> str:
        """What stands before `/embeddings` and `/models`."""
        bare = self.address.rstrip("/").removesuffix(_ENDPOINT)
        return bare if "/" in bare.split("://", 1)[1] or self.address.rstrip("/").endswith(_ENDPOINT) else f"{bare}/v1"

    def model(self) -> str:
        """Return the name of the first model that the server offers."""
        offered = self._ask("/models", None).get("data") or []
        if not offered:
            raise ParityError(f"The server at {self.root} offers no model.")
        return str(offered[0]["id"])

    def owner(self) -> str:
        """Return what the server calls the owner of its first model, by which engines can be told apart."""
        offered = self._ask("/models", None).get("data") or [{}]
        return str(offered[0].get("owned_by", ""))

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, D) vectors.

        Raises ParityError where the server cannot be reached or answers otherwise, DataError where it refuses texts.
        """
        model = self.model()
        rows: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            answer = self._ask(_ENDPOINT, {"model": model, "input": batch, "encoding_format": "float"})
            found = sorted(answer.get("data") or [], key=lambda one: one["index"])
            if len(found) != len(batch):
                raise ParityError(f"The server at {self.root} gave {len(found)} vectors for {len(batch)} texts.")
            rows += [one["embedding"] for one in found]
        return np.array(rows, dtype=np.float32)

    def _ask(self, path: str, content: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.root + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                read = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            kind = DataError if error.code in (400, 413, 422) else ParityError
            raise kind(f"The server at {self.root}{path} answered {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise ParityError(f"The server at {self.root}{path} gave no answer that can be read: {error}") from error
        if not isinstance(read, dict):
            raise ParityError(f"The server at {self.root}{path} answered with a {type(read).__name__}, not an object.")
        return read
