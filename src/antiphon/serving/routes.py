"""The routes of OpenAI's clients: embeddings and models; and those for who runs the server: health and figures."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from antiphon.errors import DataError
from antiphon.model.unit_vectors import unit
from antiphon.serving.cutting import wished
from antiphon.serving.error_responses import ApiError
from antiphon.serving.schema import ERRORS, EmbeddingRequest, EmbeddingResponse, ModelCard, ModelList, WrappedText
from antiphon.serving.served_model import Vectors
from antiphon.serving.service import Service

NUMBERS_AT_ONCE = 50_000
"""Answers with more numbers than this are written in a thread, so that other clients do not wait."""


def api(service: Service) -> APIRouter:
    """Return the routes of OpenAI's clients, each with and without the /v1 that some leave out."""
    router = APIRouter(responses=ERRORS)
    for part in (_embeddings, _models):
        part(router, service)
    return router


def _embeddings(router: APIRouter, service: Service) -> None:
    @router.post("/embeddings", response_model=EmbeddingResponse)
    @router.post("/v1/embeddings", response_model=EmbeddingResponse)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Embed texts; the vectors have length 1 and come in the order of the input."""
        service.check_model(body.model)
        reading = service.reading(body)
        width = wanted_width(service, dimensions=body.dimensions, output_dimension=body.output_dimension)
        texts = texts_of(body.input, service, "input")
        cutting = wished(
            truncate=body.truncate, truncation=body.truncation, truncate_prompt_tokens=body.truncate_prompt_tokens
        )
        embedded = await service.embed(texts, reading, request, field="input", cutting=cutting)
        vectors = shortened(embedded.vectors, width)
        answer = {
            "object": "list",
            "model": service.settings.name,
            "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        }
        form = body.encoding_format or "float"
        if vectors.size > NUMBERS_AT_ONCE:
            return await asyncio.to_thread(_written, answer, vectors, form)
        return _written(answer, vectors, form)


def _models(router: APIRouter, service: Service) -> None:
    started = int(time.time())

    @router.get("/models")
    @router.get("/v1/models")
    async def models() -> ModelList:
        """Name the model."""
        return ModelList(object="list", data=[_card(service, started)])

    @router.get("/models/{model:path}")
    @router.get("/v1/models/{model:path}")
    async def model_card(model: str) -> ModelCard:
        """Describe the model."""
        service.check_model(model)
        return _card(service, started)


def operations(service: Service) -> APIRouter:
    """Return the routes of those who run the server."""
    router = APIRouter(responses=ERRORS)

    @router.get("/health")
    async def health() -> JSONResponse:
        """Say whether requests are taken: 200, or 503 while shutting down."""
        alive = service.batcher.alive
        return JSONResponse({"status": "ok" if alive else "shutting down"}, status_code=200 if alive else 503)

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Give the figures in Prometheus' text format."""
        return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def wanted_width(service: Service, **fields: int | None) -> int:
    """Return how many dimensions a request wants, by whichever of its names; a 400 for more than there are, or two."""
    width = service.embedder.width
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if value > width:
            raise ApiError(400, f"{name} is {value}; this model's vectors have {width}.", param=name)
    if len(set(given.values())) > 1:
        raise ApiError(400, f"{' and '.join(given)} are one thing; give one of them.", param=next(iter(given)))
    return next(iter(given.values()), width)


def shortened(vectors: Vectors, width: int) -> Vectors:
    """Return the first dimensions of vectors, at length 1 again."""
    return vectors if width == vectors.shape[1] else unit(vectors[:, :width])


def texts_of(given: Any, service: Service, field: str) -> list[str]:
    """Return the input's texts; arrays of token ids stand for the texts that the model's tokenizer makes them of."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], str):
        return list(given)
    if isinstance(given[0], WrappedText):
        return [document.text for document in given]
    arrays: list[list[int]] = [given] if isinstance(given[0], int) else given
    service.check_number(len(arrays), field)
    try:
        return [service.embedder.tokenizer.text(ids) for ids in arrays]
    except DataError as error:
        raise ApiError(400, str(error), param=field) from None


def base64_of(row: Vectors) -> str:
    """Return a vector as base64 of little-endian 32-bit floats."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")


def numbers(content: Any) -> Response:
    """Return an answer as JSON; orjson writes float32 as the shortest number that reads back the same."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _written(answer: dict[str, Any], vectors: Vectors, form: str) -> Response:
    rows: Sequence[Any] = list(vectors) if form == "float" else [base64_of(row) for row in vectors]
    data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)]
    return numbers({**answer, "data": data})


def _card(service: Service, created: int) -> ModelCard:
    return ModelCard(
        id=service.settings.name,
        object="model",
        created=created,
        owned_by="antiphon",
        dimensions=service.embedder.width,
        max_tokens=service.embedder.model.max_seq_length,
        prompt_names=service.embedder.prompt_names,
    )
