"""Run the application on a socket until a signal comes, then finish what is in flight."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from sentence_transformers import SentenceTransformer

from antiphon.errors import ModelError
from antiphon.serving.app import create_app
from antiphon.serving.connections import DeadlineProtocol
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
    """Serve until SIGINT or SIGTERM; requests that are in are answered, new ones are refused.

    Raises ModelError where the thread that embeds has died: whoever started this process shall see that and start it
    anew.
    """
    died = threading.Event()

    def stop() -> None:
        died.set()
        server.should_exit = True

    config = uvicorn.Config(
        create_app(model, settings, on_death=stop),
        http=DeadlineProtocol,
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
    if not server.started:
        raise ModelError("The server did not start: the model could not embed its first text; the log says why.")
    if died.is_set():
        raise ModelError("The thread that embeds has died and the server stopped; its log says why.")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()
