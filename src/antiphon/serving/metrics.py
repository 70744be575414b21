"""Figures for Prometheus, in a registry of each server's own."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """What a server counts."""

    def __init__(self, open_texts: Callable[[], int]) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("antiphon_requests", "Requests by route and status.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "antiphon_request_seconds", "Time to a request's answer.", ["route"], buckets=SECONDS, registry=own
        )
        self.texts = Counter("antiphon_texts", "Texts embedded.", registry=own)
        self.tokens = Counter("antiphon_tokens", "Tokens of the sequences embedded, about.", registry=own)
        self.batch_texts = Histogram("antiphon_batch_texts", "Texts in a batch.", buckets=SIZES, registry=own)
        self.busy = Counter("antiphon_busy_seconds", "Time that the model worked.", registry=own)
        waiting = Gauge("antiphon_open_texts", "Texts taken in and not answered yet.", registry=own)
        waiting.set_function(open_texts)

    def batch(self, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.texts.inc(texts)
        self.tokens.inc(tokens)
        self.batch_texts.observe(texts)
        self.busy.inc(seconds)

    def exposition(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return generate_latest(self.registry)


class CountRequests:
    """Counts and times every request; a route's pattern is its label, so that labels stay few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
