"""The application: every part put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from sentence_transformers import SentenceTransformer

from antiphon import __version__
from antiphon.serving import error_responses as errors
from antiphon.serving import other_routes, playground, routes
from antiphon.serving.limits import Doorkeeper
from antiphon.serving.metrics import CountRequests
from antiphon.serving.served_model import BatchKey
from antiphon.serving.server_settings import ServerSettings
from antiphon.serving.service import ClientGoneError, Service


def create_app(
    model: SentenceTransformer, settings: ServerSettings, *, on_death: Callable[[], None] = lambda: None
) -> FastAPI:
    """Return the ASGI application that serves a model.

    It embeds in one thread from its start-up to its shut-down, which waits for the requests that are in. `on_death` is
    told from that thread where it dies, when nothing is embedded any more.
    """
    service = Service(model, settings, on_death=on_death)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        # a model that cannot embed shall fail here and not at the first client
        service.batcher.embed(["A first text."], [8], BatchKey()).result()
        yield
        service.batcher.close()

    app = FastAPI(
        title="Antiphon",
        version=__version__,
        summary="OpenAI-compatible embeddings of one model.",
        lifespan=lifespan,
        # their pages load scripts from elsewhere
        docs_url=None,
        redoc_url=None,
        # some clients name no type; a page of another origin, which could do the same, is turned away before
        strict_content_type=False,
    )
    errors.install(app)
    app.add_exception_handler(ClientGoneError, _nobody)
    # the last that is added stands outermost
    app.add_middleware(Doorkeeper, settings=settings)
    app.add_middleware(CountRequests, metrics=service.metrics)
    app.include_router(routes.api(service))
    app.include_router(other_routes.others(service))
    app.include_router(routes.operations(service))
    app.include_router(playground.pages(service))
    return app


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # for the figures; nobody reads it
