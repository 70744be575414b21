"""Run the application on a socket until a signal comes, then finish what is in flight."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from sentence_transformers import SentenceTransformer

from antiphon.serving.app import create_app
from antiphon.serving.server_settings import ServerSettings

GRACE_SECONDS = 60
"""How long a shutdown waits for clients to take their answers."""


def run(
    model: SentenceTransformer,
    listener: socket.socket,
    settings: ServerSettings,
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests that are in are answered, new ones are refused."""
    config = uvicorn.Config(
        create_app(model, settings),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        # longer than clients keep theirs, so that none writes into a connection that is being closed
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config, on_ready)
    # uvicorn raises the signal once more when it is done, which shall not count as a failure
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: None)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()
