"""Vectors from a server: ours, vLLM, llama.cpp, infinity, text-embeddings-inference, Ollama; its dialect is found out.

N texts, D width.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from antiphon.errors import DataError, ParityError
from antiphon.model.dialects import Dialect, Texts, candidates

_BATCH = 16
_TIMEOUT = 120.0
_REFUSED = (400, 413, 422)
_NOT_HERE = (404, 405)


def is_url(name: object) -> bool:
    """Return whether a name is the address of a server."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


class Endpoint(Protocol):
    """Whatever gives vectors of texts from elsewhere."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, D) vectors; DataError for texts that are refused."""
        ...


class _NotHereError(ParityError):
    """The server answers, and has nothing at this path."""


@dataclass(frozen=True)
class _Place:
    """Where and how a server is asked."""

    root: str
    """What stands before the dialect's paths."""
    dialect: Dialect
    model: str
    engine: str


@dataclass(frozen=True)
class Server:
    """An address such as http://localhost:8000, with or without `/v1` and `/embeddings`, `/embed` or `/api/embed`."""

    address: str
    key: str | None = None
    """Sent as a bearer token."""

    @property
    def root(self) -> str:
        """What stands before the paths of the server."""
        return self._place.root

    @property
    def model(self) -> str:
        """The name of the first model that the server offers."""
        return self._place.model

    @property
    def engine(self) -> str:
        """What the server runs on, as `remedies` names it; nothing where it does not tell."""
        return self._place.engine

    @property
    def takes_ids(self) -> bool:
        """Whether it can be asked with token ids."""
        return self._place.dialect.takes_ids

    def encode(self, texts: Texts) -> npt.NDArray[np.float32]:
        """Return (N, D) vectors of texts, or of the token ids of each, which a server takes as they are.

        Raises ParityError where the server cannot be reached or answers otherwise, DataError where it refuses texts.
        """
        place = self._place
        rows: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            batch: Any = texts[start : start + _BATCH]
            asked = place.dialect.body(place.model, batch)
            found = self._read(place.root + place.dialect.path, place.dialect.vectors, asked)
            if len(found) != len(batch):
                raise ParityError(f"The server at {place.root} gave {len(found)} vectors for {len(batch)} texts.")
            rows += found
        return np.array(rows, dtype=np.float32)

    @cached_property
    def _place(self) -> _Place:
        """Find out where and how the server is asked; ParityError where it cannot be reached or speaks otherwise."""
        tried = candidates(self.address)
        for number, (root, dialect) in enumerate(tried, start=1):
            try:
                model, engine = self._read(root + dialect.about, dialect.served)
            except _NotHereError:
                if number == len(tried):
                    raise
                continue
            return _Place(root, dialect, model, engine)
        raise AssertionError("an address stands for something")

    def _read(self, url: str, reader: Any, content: dict[str, Any] | None = None) -> Any:
        """Return what a dialect's function reads in the answer at an address."""
        answer = self._ask(url, content)
        try:
            return reader(answer)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            shown = json.dumps(answer)[:80]
            kind = ParityError if content is not None else _NotHereError
            raise kind(f"The server at {url} gave an answer of another shape ({shown}).") from error

    def _ask(self, url: str, content: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            answer = error.read(500).decode(errors="replace")
            kind = DataError if error.code in _REFUSED else _NotHereError if error.code in _NOT_HERE else ParityError
            raise kind(f"The server at {url} answered {error.code}: {answer}") from error
        except ValueError as error:  # a page, as some servers give at any path
            kind = ParityError if content is not None else _NotHereError
            raise kind(f"The server at {url} gave no answer that can be read: {error}") from error
        except OSError as error:
            raise ParityError(f"The server at {url} gave no answer that can be read: {error}") from error
