"""What stands before every route: the name that was asked for, the key, and a body that is bounded in size and time."""

from __future__ import annotations

import hmac
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.serving.bodies import CLOSE, has_body, read_body
from antiphon.serving.error_responses import ApiError, error_response
from antiphon.serving.hosts import HostRule
from antiphon.serving.server_settings import ServerSettings

OPEN = frozenset({("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("HEAD", "/health")})
"""What needs no key: it says nothing of the model's."""


class Doorkeeper:
    """Refuses what needs no look inside: 401, 403, 408, 413, 421, and bytes that are no text."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = HostRule(settings.host, settings.allow_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in with its body read, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # in place, so that the figures are told the route
        scope["path"] = plain_path(scope["path"])
        headers = Headers(scope=scope)
        try:
            self._hosts.check(headers)
            self._check_key(scope, headers)
            body = await read_body(
                headers, receive, most=self._settings.max_body_bytes, seconds=self._settings.body_seconds
            )
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        key = self._settings.api_key
        if key is None or (scope["method"], scope["path"]) in OPEN:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # bytes, because compare_digest takes only ASCII strings; its time does not tell how much of a key is right
        same = hmac.compare_digest(given.strip().encode(), key.encode())
        if kind.lower() != "bearer" or not same:
            word = "wrong" if given else "missing"
            raise ApiError(
                401,
                f"The API key is {word}; send it in the header Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer", **(CLOSE if has_body(headers) else {})},
            )


def plain_path(path: str) -> str:
    """Return a path with one slash where a client put two together, and with none at its end."""
    return re.sub("/+", "/", path).rstrip("/") or "/"


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once and then what comes after it, which is the client's going."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
