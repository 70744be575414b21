"""What stands before every route: the key, and a body of bounded size that arrives in time and is UTF-8."""

from __future__ import annotations

import asyncio
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.serving.error_responses import ApiError, error_response
from antiphon.serving.server_settings import ServerSettings

OPEN = frozenset({"/", "/health"})
"""Paths that need no key: they say nothing of the model's."""


class Doorkeeper:
    """Refuses what needs no look inside: 401, 408, 413, and bytes that are no text."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in with its body read, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._check_key(scope, headers)
            body = await self._body(headers, receive)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        key = self._settings.api_key
        if key is None or scope["path"] in OPEN:
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
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the whole body, None where its client has gone."""
        most = self._settings.max_body_bytes
        too_large = ApiError(413, f"The body is larger than {most:,} bytes; send fewer texts in a request.")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            try:
                message = await asyncio.wait_for(receive(), self._settings.body_seconds)
            except TimeoutError:
                waited = f"{self._settings.body_seconds:g} s"
                raise ApiError(
                    408, f"The body stopped arriving for {waited}.", headers={"Connection": "close"}
                ) from None
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > most:
                raise too_large
        body = b"".join(parts)
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ApiError(400, f"The body is not UTF-8 (byte {error.start}).") from None
        return body


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
