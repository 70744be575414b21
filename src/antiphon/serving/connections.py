"""A connection's own deadlines, which uvicorn has not: for the head of a request, and for an answer nobody takes."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the first byte of a request, or from the connection, to the end of its headers; half-sent ones end here."""
STALL_SECONDS = 60.0
"""How long an answer that waits for its reader may stand still, before the connection is given up."""
_SENTENCE = (
    b'{"error": {"message": "The headers did not arrive in time.", "type": "invalid_request_error", "param": null, '
    b'"code": null}}'
)
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)


class DeadlineProtocol(H11Protocol):
    """uvicorn's protocol with a clock for what is half sent and for what is half read."""

    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._begun = self._asked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection on which nothing comes is as bad as half a request."""
        super().connection_made(transport)
        self._start_head()

    def data_received(self, data: bytes) -> None:
        """Stop the clock where a request is whole enough to be worked on, start it where one has begun."""
        self._begun = True
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._asked = True
            self._stop_head()
        elif self._head_timer is None:
            self._start_head()

    def pause_writing(self) -> None:
        """Watch an answer that its reader does not take."""
        super().pause_writing()
        if self._stall_timer is None:
            self._watch(None)

    def resume_writing(self) -> None:
        """Stop watching."""
        super().resume_writing()
        self._stop_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_head()
        self._stop_stall()
        super().connection_lost(exc)

    def _start_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        # behind an answer that came before its request was whole there is nothing left to be said
        if self._begun and not self._asked:
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _watch(self, before: int | None) -> None:
        """Give up an answer of which nothing was taken since the last look."""
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.transport.abort()
            return
        self._stall_timer = self.loop.call_later(self.stall_seconds, self._watch, left)
