"""The routes of Cohere's, Jina's and Voyage's clients for reranking, of Cohere's and TEI's for embeddings."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from antiphon.serving.cutting import wished
from antiphon.serving.other_schemas import CohereEmbedRequest, CohereEmbedResponse, TeiEmbedRequest
from antiphon.serving.rerank_schema import RerankRequest, RerankResponse, TeiRanked
from antiphon.serving.routes import base64_of, numbers, shortened, texts_of, wanted_width
from antiphon.serving.schema import ERRORS, Prompted, WrappedText
from antiphon.serving.served_model import Vectors
from antiphon.serving.service import Service


def others(service: Service) -> APIRouter:
    """Return the routes of other servers' clients."""
    router = APIRouter(responses=ERRORS)
    for part in (_rerank, _cohere_embed, _tei_embed):
        part(router, service)
    return router


def _rerank(router: APIRouter, service: Service) -> None:
    @router.post("/rerank", response_model=RerankResponse | list[TeiRanked], response_model_exclude_none=True)
    @router.post("/v1/rerank", response_model=RerankResponse | list[TeiRanked], response_model_exclude_none=True)
    @router.post("/v2/rerank", response_model=RerankResponse | list[TeiRanked], response_model_exclude_none=True)
    async def rerank(body: RerankRequest, request: Request) -> Any:
        """Put documents in the order of their cosine with the query; equal ones keep theirs."""
        service.check_model(body.model)
        field = "documents" if body.texts is None else "texts"
        given = body.documents if body.texts is None else body.texts
        documents = [document.text if isinstance(document, WrappedText) else document for document in given or ()]
        query = service.reading(Prompted(input_type="query", instruction=body.instruction))
        cutting = wished(
            truncation=body.truncation,
            truncate=body.truncate,
            truncation_direction=body.truncation_direction,
            max_tokens_per_doc=body.max_tokens_per_doc,
        )
        asked, found = await asyncio.gather(
            service.embed([body.query], query, request, field="query"),
            service.embed(
                documents, service.reading(Prompted(input_type="document")), request, field=field, cutting=cutting
            ),
        )
        scores = (found.vectors @ asked.vectors[0]).clip(-1.0, 1.0)
        order = [int(index) for index in np.argsort(-scores, kind="stable")[: body.top_n or body.top_k]]
        texts = documents if body.return_documents or body.return_text else [None] * len(documents)
        if body.texts is not None:
            return [{"index": index, "score": float(scores[index]), "text": texts[index]} for index in order]
        tokens = asked.tokens + found.tokens
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": service.settings.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            **_ranked(order, scores, texts, body.is_voyage),
        }


def _ranked(order: Sequence[int], scores: Any, texts: Sequence[str | None], voyage: bool) -> dict[str, Any]:
    """Return documents in their order, in Cohere's shape, and for Voyage's clients in theirs too."""
    rows = [{"index": index, "relevance_score": float(scores[index])} for index in order]
    shown = [texts[index] for index in order]
    wrapped = [None if text is None else {"text": text} for text in shown]
    results = [{**row, "document": document} for row, document in zip(rows, wrapped, strict=True)]
    plain = [{**row, "document": document} for row, document in zip(rows, shown, strict=True)]
    return {"results": results, "data": plain if voyage else None}


def _cohere_embed(router: APIRouter, service: Service) -> None:
    @router.post("/v2/embed", response_model=CohereEmbedResponse)
    async def cohere_embed(body: CohereEmbedRequest, request: Request) -> Response:
        """Embed texts for Cohere's clients."""
        answer, vectors = await _cohere_answer(service, body, request)
        return numbers({**answer, **_by_type(vectors, body.embedding_types or ["float"])})

    @router.post("/v1/embed", response_model=None, include_in_schema=False)
    async def old_cohere_embed(body: CohereEmbedRequest, request: Request) -> Response:
        """Embed texts for Cohere's older clients, which are given bare vectors unless they name kinds of numbers."""
        answer, vectors = await _cohere_answer(service, body, request)
        if body.embedding_types is not None:
            return numbers({**answer, **_by_type(vectors, body.embedding_types)})
        return numbers({**answer, "embeddings": list(vectors), "response_type": "embeddings_floats"})


async def _cohere_answer(
    service: Service, body: CohereEmbedRequest, request: Request
) -> tuple[dict[str, Any], Vectors]:
    """Return what every answer to Cohere's clients holds, and the (N, D) vectors."""
    service.check_model(body.model)
    reading = service.reading(body)
    width = wanted_width(service, output_dimension=body.output_dimension)
    cutting = wished(truncate=body.truncate, max_tokens=body.max_tokens)
    field = "inputs" if body.texts is None else "texts"
    embedded = await service.embed(body.given, reading, request, field=field, cutting=cutting)
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": embedded.tokens}}
    answer = {"id": f"embed-{uuid.uuid4().hex}", "texts": body.given, "meta": meta}
    return answer, shortened(embedded.vectors, width)


def _by_type(vectors: Vectors, kinds: Sequence[str]) -> dict[str, Any]:
    forms: dict[str, list[Any]] = {
        kind: [base64_of(row) for row in vectors] if kind == "base64" else list(vectors) for kind in kinds
    }
    return {"embeddings": forms, "response_type": "embeddings_by_type"}


def _tei_embed(router: APIRouter, service: Service) -> None:
    @router.post("/", include_in_schema=False)
    @router.post("/embed", response_model=list[list[float]])
    async def tei_embed(body: TeiEmbedRequest, request: Request) -> Response:
        """Embed texts for clients of text-embeddings-inference; the answer is the vectors alone."""
        service.check_model(body.model)
        reading = service.reading(Prompted(prompt_name=body.prompt_name))
        width = wanted_width(service, dimensions=body.dimensions)
        texts = texts_of(body.inputs, service, "inputs")
        cutting = wished(truncate=body.truncate, truncation_direction=body.truncation_direction)
        embedded = await service.embed(texts, reading, request, field="inputs", cutting=cutting)
        return numbers(list(shortened(embedded.vectors, width)))
