"""The routes for programs: embeddings, models, reranking, health and figures."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from antiphon.errors import DataError
from antiphon.serving.error_responses import ApiError
from antiphon.serving.schema import (
    ERRORS,
    Document,
    EmbeddingRequest,
    EmbeddingResponse,
    ModelCard,
    ModelList,
    RerankRequest,
    RerankResponse,
)
from antiphon.serving.served_model import Vectors, unit
from antiphon.serving.service import Service

NUMBERS_AT_ONCE = 50_000
"""Answers with more numbers than this are written in a thread, so that other clients do not wait."""


def api(service: Service) -> APIRouter:
    """Return the routes of OpenAI's and Cohere's clients."""
    router = APIRouter(responses=ERRORS)
    for part in (_embeddings, _models, _rerank):
        part(router, service)
    return router


def _embeddings(router: APIRouter, service: Service) -> None:
    @router.post("/v1/embeddings", response_model=EmbeddingResponse)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Embed texts; the vectors have length 1 and come in the order of the input."""
        service.check_model(body.model)
        reading = service.reading(body.input_type, body.prompt_name)
        width = service.embedder.width
        if body.dimensions is not None and body.dimensions > width:
            raise ApiError(
                400, f"dimensions is {body.dimensions}; this model's vectors have {width}.", param="dimensions"
            )
        texts = _texts(body.input, service)
        service.check_texts(texts, "input")
        embedded = await service.embed(texts, reading, request)
        vectors = embedded.vectors
        if body.dimensions is not None and body.dimensions < width:
            vectors = unit(vectors[:, : body.dimensions])
        answer = {
            "object": "list",
            "model": service.settings.name,
            "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        }
        if vectors.size > NUMBERS_AT_ONCE:
            return await asyncio.to_thread(_written, answer, vectors, body.encoding_format)
        return _written(answer, vectors, body.encoding_format)


def _models(router: APIRouter, service: Service) -> None:
    started = int(time.time())

    @router.get("/v1/models")
    async def models() -> ModelList:
        """Name the model."""
        return ModelList(object="list", data=[_card(service, started)])

    @router.get("/v1/models/{model:path}")
    async def model_card(model: str) -> ModelCard:
        """Describe the model."""
        service.check_model(model)
        return _card(service, started)


def _rerank(router: APIRouter, service: Service) -> None:
    @router.post("/rerank", response_model_exclude_none=True)
    @router.post("/v1/rerank", response_model_exclude_none=True)
    @router.post("/v2/rerank", response_model_exclude_none=True)
    async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
        """Put documents in the order of their cosine with the query; equal ones keep theirs."""
        service.check_model(body.model)
        documents = [document.text if isinstance(document, Document) else document for document in body.documents]
        service.check_texts([body.query], "query")
        service.check_texts(documents, "documents")
        query, found = await asyncio.gather(
            service.embed([body.query], service.reading("query", None), request),
            service.embed(documents, service.reading("document", None), request),
        )
        scores = (found.vectors @ query.vectors[0]).clip(-1.0, 1.0)
        order = np.argsort(-scores, kind="stable")[: body.top_n]
        results = [
            {
                "index": int(index),
                "relevance_score": float(scores[index]),
                "document": {"text": documents[index]} if body.return_documents else None,
            }
            for index in order
        ]
        tokens = query.tokens + found.tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return RerankResponse.model_validate(
            {"id": f"rerank-{uuid.uuid4().hex}", "model": service.settings.name, "results": results, "usage": usage}
        )


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


def _texts(given: Any, service: Service) -> list[str]:
    """Return the input's texts; arrays of token ids stand for the texts that the model's tokenizer makes them of."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], str):
        return list(given)
    arrays: list[list[int]] = [given] if isinstance(given[0], int) else given
    if len(arrays) > service.settings.max_inputs:
        service.check_texts(["-"] * len(arrays), "input")
    try:
        return [service.embedder.tokenizer.text(ids) for ids in arrays]
    except DataError as error:
        raise ApiError(400, str(error), param="input") from None


def _written(answer: dict[str, Any], vectors: Vectors, form: str) -> Response:
    """Return the answer as JSON; orjson writes float32 as the shortest number that reads back the same."""
    rows: Sequence[Any] = list(vectors) if form == "float" else [_base64(row) for row in vectors]
    data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)]
    content = orjson.dumps({**answer, "data": data}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


def _base64(row: Vectors) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")


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
