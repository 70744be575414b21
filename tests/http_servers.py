"""Small servers for tests: each answers JSON by a handler of its own, and ends with the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """Reads JSON and answers JSON, and keeps silent about it."""

    def asked(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def starting() -> Iterator[Callable[[type[JsonHandler]], str]]:
    """Hand out what starts a server and returns its address; all of them end here."""
    servers: list[ThreadingHTTPServer] = []

    def start(handler: type[JsonHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        # it is asked to end at the end of each test, and looks after so many seconds
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
