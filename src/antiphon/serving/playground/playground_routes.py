"""The page, and the routes that it alone needs: about, tokens, similarity under templates, reconstruction."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field, StrictStr
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from antiphon.errors import AntiphonError
from antiphon.model.description import Description, describe
from antiphon.modules import POOLINGS
from antiphon.serving.error_responses import ApiError
from antiphon.serving.schema import ERRORS, Body
from antiphon.serving.served_model import BatchKey
from antiphon.serving.service import Service
from antiphon.text.template import Side

MOST_TEXTS = 16
MOST_VIEWS = 4
MOST_CHARACTERS = 2000
MOST_TOKENS = 64
"""What one click may cost; the page says so too."""

Shown = Annotated[StrictStr, Field(min_length=1, max_length=MOST_CHARACTERS)]


class TokensRequest(Body):
    """A text to show the tokens of."""

    text: Shown
    side: Side = "query"


class SimilarityRequest(Body):
    """Texts to compare, and the templates to see them under; an empty name is the model as it is."""

    texts: Annotated[list[Shown], Field(min_length=2, max_length=MOST_TEXTS)]
    templates: Annotated[list[StrictStr], Field(min_length=1, max_length=MOST_VIEWS)] = [""]
    pooling: StrictStr = "mean"


class MemoryRequest(Body):
    """A text to make a vector of and to decode it again."""

    text: Shown
    side: Side = "query"
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 32


def pages(service: Service) -> APIRouter:
    """Return the page and its routes; what they compute waits in the same queue as everything else."""
    router = APIRouter(responses=ERRORS)
    for part in (_page, _tokens, _similarity, _memory):
        part(router, service)
    return router


def _page(router: APIRouter, service: Service) -> None:
    html = files("antiphon.serving.playground").joinpath("page.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": content_security_policy(html),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    @router.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """Give the page."""
        return HTMLResponse(html, headers=headers)

    @router.get("/playground/about")
    async def about(request: Request) -> JSONResponse:
        """Say what the page has to know of the model."""
        model = service.embedder.model
        described = await service.call(lambda: describe(model, "x"), request)
        settings = {
            name: getattr(described, name)
            for name in ("template", "pooling", "dimensions", "max_tokens", "dtype", "attention", "device", "modules")
        }
        limits = {"texts": MOST_TEXTS, "views": MOST_VIEWS, "characters": MOST_CHARACTERS, "tokens": MOST_TOKENS}
        return JSONResponse(
            {
                "name": service.settings.name,
                **settings,
                "templates": service.embedder.templates,
                "poolings": list(POOLINGS),
                "remembers": _decodes(service),
                "limits": limits,
            }
        )


def _tokens(router: APIRouter, service: Service) -> None:
    @router.post("/playground/tokens")
    async def tokens(body: TokensRequest, request: Request) -> JSONResponse:
        """Show a text's tokens and which of them are pooled."""
        service.check_texts([body.text], "text")
        model = service.embedder.model
        return JSONResponse(_shown(await service.call(lambda: describe(model, body.text, side=body.side), request)))


def _similarity(router: APIRouter, service: Service) -> None:
    @router.post("/playground/similarity")
    async def similarity(body: SimilarityRequest, request: Request) -> JSONResponse:
        """Give the cosines of all pairs of texts under every template asked for."""
        service.check_texts(body.texts, "texts")
        embedder = service.embedder
        try:
            readings = [embedder.view(name, body.pooling) if name else BatchKey() for name in body.templates]
        except AntiphonError as error:
            raise ApiError(400, str(error), param="templates") from None
        found = await asyncio.gather(
            *(service.embed(body.texts, reading, request, field="texts") for reading in readings)
        )
        maps = [
            {"template": name, **_cosines(embedded.vectors)}
            for name, embedded in zip(body.templates, found, strict=True)
        ]
        return JSONResponse({"maps": maps})


def _memory(router: APIRouter, service: Service) -> None:
    decoding = asyncio.Lock()

    @router.post("/playground/memory")
    async def memory(body: MemoryRequest, request: Request) -> JSONResponse:
        """Decode a text from its own vector; one at a time, for it keeps the model from everybody else."""
        service.check_texts([body.text], "text")
        if decoding.locked():
            raise ApiError(429, "Another text is being decoded; ask again in a moment.", headers={"Retry-After": "1"})
        from antiphon.training.reconstruct import reconstruct

        model = service.embedder.model
        async with decoding:
            try:
                text = await service.call(
                    lambda: reconstruct(model, body.text, side=body.side, max_tokens=body.max_tokens), request
                )
            except AntiphonError as error:
                raise ApiError(400, str(error)) from None
        return JSONResponse({"text": text})


def content_security_policy(html: str) -> str:
    """Return a policy under which a page can reach this server only and run only what is written in it."""
    allowed = {
        kind: " ".join(f"'sha256-{_digest(block)}'" for block in re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.S))
        for kind in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(block: str) -> str:
    return base64.b64encode(hashlib.sha256(block.encode("utf-8")).digest()).decode("ascii")


def _shown(described: Description) -> dict[str, Any]:
    tokens = [{"id": token.id, "text": token.text, "pooled": token.pooled} for token in described.tokens]
    return {
        "tokens": tokens,
        "pooled": described.pooled,
        "cut": described.cut,
        "prompt": described.prompt,
        "template": described.template,
        "pooling": described.pooling,
    }


def _cosines(vectors: Any) -> dict[str, Any]:
    """Return the cosines of all pairs, and over pairs of two texts the lowest, the median and the highest."""
    cosines = (vectors @ vectors.T).clip(-1.0, 1.0)
    apart = cosines[~np.eye(len(cosines), dtype=bool)]
    figures = {"lowest": apart.min(), "median": np.median(apart), "highest": apart.max()}
    return {"cosines": cosines.tolist()} | {name: float(value) for name, value in figures.items()}


def _decodes(service: Service) -> bool:
    """Return whether the model is a causal language model, whose head can say what a vector holds."""
    config = getattr(getattr(service.embedder.model[0], "model", None), "config", None)
    return getattr(config, "model_type", None) in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
