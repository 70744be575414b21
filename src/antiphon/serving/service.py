"""A server's parts in one place, and how a request waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from fastapi import Request
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError
from antiphon.model.server import Server
from antiphon.serving.batching import Batcher
from antiphon.serving.cutting import Cutting
from antiphon.serving.error_responses import ApiError
from antiphon.serving.metrics import Metrics
from antiphon.serving.schema import Prompted
from antiphon.serving.served_model import BatchKey, ServedModel, Vectors
from antiphon.serving.server_settings import ServerSettings
from antiphon.serving.upstream import UpstreamEmbedder

Answer = TypeVar("Answer")

UNASKED = Cutting()
PROVIDER = "openai/"
"""What some clients put before a model's name to say which protocol it speaks."""
CHARACTERS_AT_ONCE = 20_000
"""Texts shorter than this together are counted in the event loop: quicker than to hand them to a thread."""


class ClientGoneError(Exception):
    """The client closed its connection before the answer was there."""


@dataclass(frozen=True)
class Embedded:
    """Vectors of texts, and the tokens of the texts themselves."""

    vectors: Vectors
    tokens: int


class Service:
    """The model behind its queue."""

    def __init__(
        self, model: SentenceTransformer, settings: ServerSettings, *, on_death: Callable[[], None] = lambda: None
    ) -> None:
        self.settings = settings
        self.embedder = _embedder(model, settings)
        self.metrics = Metrics(lambda: self.batcher.open_texts)
        self.batcher: Batcher[BatchKey] = Batcher(
            self.embedder.encode,
            max_batch_tokens=settings.max_batch_tokens,
            max_queue=settings.max_queue,
            on_batch=self.metrics.batch,
            on_death=on_death,
            fatal=(torch.AcceleratorError,),  # after it every call of a GPU fails: a new process is wanted
        )

    async def embed(
        self, texts: Sequence[str], reading: BatchKey, request: Request, *, field: str, cutting: Cutting = UNASKED
    ) -> Embedded:
        """Return (N, D) vectors of length 1 of the texts of a field.

        Raises a 400 for texts that cannot be embedded or that would be cut otherwise than `cutting` wants it, what the
        batcher raises, and ClientGoneError for nobody there.
        """
        self.check_texts(texts, field)
        tokenizer = self.embedder.tokenizer
        if sum(map(len, texts)) > CHARACTERS_AT_ONCE:
            counts = await asyncio.to_thread(tokenizer.counts, texts)
        else:
            counts = tokenizer.counts(texts)
        if cutting.asks:
            cutting.check(counts, await self.call(lambda: self.embedder.space(reading), request), field)
        costs = self.embedder.costs(counts, reading)
        vectors = await answered(self.batcher.embed(texts, costs, reading), request)
        return Embedded(vectors, sum(counts))

    async def call(self, function: Callable[[], Answer], request: Request) -> Answer:
        """Return what a function gives that needs the model for itself."""
        return await answered(self.batcher.call(function), request)

    def check_model(self, name: str | None) -> None:
        """Raise a 404 for any model but this server's."""
        if name is not None and name.removeprefix(PROVIDER) != self.settings.name.removeprefix(PROVIDER):
            raise ApiError(
                404,
                f"There is no model {name[:100]!r} here; this server has {self.settings.name!r}.",
                param="model",
                code="model_not_found",
            )

    def reading(self, asked: Prompted) -> BatchKey:
        """Return how a request's texts are read; a 400 for a prompt that there is not."""
        try:
            return self.embedder.reading(asked.side, asked.prompt_name, asked.prompt, asked.instruction)
        except ConfigError as error:
            param = "prompt_name" if asked.instruction is None else "instruction"
            raise ApiError(400, str(error), param=param) from None

    def check_number(self, texts: int, field: str) -> None:
        """Raise a 400 for too many texts."""
        if texts > self.settings.max_inputs:
            raise ApiError(
                400,
                f"{field} holds {texts:,} texts; at most {self.settings.max_inputs:,} fit into a request.",
                param=field,
                code="too_many_inputs",
            )

    def check_texts(self, texts: Sequence[str], field: str) -> None:
        """Raise a 400 for too many texts, an empty one, or one that is not Unicode."""
        self.check_number(len(texts), field)
        for number, text in enumerate(texts):
            if not text:
                raise ApiError(
                    400, f"Text {number} of {field} is empty, so there is nothing to embed; leave it out.", param=field
                )
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise ApiError(400, f"Text {number} of {field} holds half of a surrogate pair.", param=field)


def _embedder(model: SentenceTransformer, settings: ServerSettings) -> ServedModel:
    if settings.upstream is None:
        return ServedModel(model, compile=settings.compile)
    return UpstreamEmbedder(model, Server(settings.upstream, settings.upstream_key))


async def answered(future: Future[Answer], request: Request) -> Answer:
    """Wait for an answer and for the client to go, whichever comes first; a client that goes cancels its work."""
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_gone(request))
    waiting: set[asyncio.Future[Any]] = {answer, gone}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise ClientGoneError
    finally:
        answer.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
