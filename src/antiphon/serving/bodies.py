"""The body of a request: of bounded size before and after unpacking, whole within a time, and UTF-8."""

from __future__ import annotations

import asyncio
import zlib

from starlette.datastructures import Headers
from starlette.types import Receive

from antiphon.serving.error_responses import ApiError

CLOSE = {"Connection": "close"}
"""For an answer before the whole body has come: what is left of it must not be taken for the next request."""
_GZIP, _ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
_PACKED = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


def has_body(headers: Headers) -> bool:
    """Return whether a body follows the headers."""
    return headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in headers


async def read_body(headers: Headers, receive: Receive, *, most: int, seconds: float) -> bytes | None:
    """Return the body as text in UTF-8, unpacked; None where its client has gone.

    `seconds` is the time for all of it: a body that drips keeps nobody waiting. Raises ApiError: 408 too slow, 413 too
    large (also unpacked), 415 packed otherwise than by gzip or deflate, 400 no such packing or no UTF-8.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", *_PACKED):
        raise ApiError(
            415, f"The body is packed as {encoding[:40]!r}; send it plain or with gzip.", headers=dict(CLOSE)
        )
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(seconds):
            body = await _received(receive, most)
    except TimeoutError:
        raise ApiError(
            408, f"The body did not arrive within {seconds:g} s; send fewer texts in a request.", headers=dict(CLOSE)
        ) from None
    if body is not None and encoding in _PACKED:
        body = _unpacked(body, _PACKED[encoding], most)
    if body is not None:
        _check_text(body)
    return body


async def _received(receive: Receive, most: int) -> bytes | None:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > most:
            raise _too_large(most)
    return b"".join(parts)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than {most:,} bytes; send fewer texts in a request.", headers=dict(CLOSE))


def _unpacked(body: bytes, window: int, most: int) -> bytes:
    """Return what is packed; it is never unpacked further than one byte beyond what is allowed."""
    found, rest = b"", body
    while rest:  # a gzip file may have several members
        unpacker = zlib.decompressobj(window)
        try:
            found += unpacker.decompress(rest, most + 1 - len(found))
        except zlib.error as error:
            raise ApiError(400, f"The body cannot be unpacked ({error}).") from None
        if len(found) > most:
            raise _too_large(most)
        if not unpacker.eof:
            raise ApiError(400, "The packed body is cut short.")
        rest = unpacker.unused_data
    return found


def _check_text(body: bytes) -> None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The body is not UTF-8 (byte {error.start}).") from None
