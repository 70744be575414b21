"""A server in a process of its own, for the tests that need a real one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from contextlib import contextmanager

KEY = "a-key-of-the-tests"


class Server:
    """The process, its address and what it said."""

    def __init__(self, program: str, *arguments: str):
        command = [program, "serve", *arguments, "--port", "0"]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ANTIPHON_API_KEY": KEY}
        self.process = subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"http://[\d.]+:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise RuntimeError("".join(self.said))
        # what is not read would fill the pipe and stop the server
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def figure(self, name: str) -> float:
        """One of the figures of /metrics."""
        return float(re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics"), re.MULTILINE)[1])

    def ask(self, texts: list[str], **fields) -> list[list[float]]:
        body = json.dumps({"input": texts, **fields}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(self.url + "/v1/embeddings", body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return [row["embedding"] for row in json.load(answer)["data"]]

    def send(self, texts: list[str], *, buffer: int | None = None) -> socket.socket:
        """Send a request and return its socket with the answer unread."""
        connection = socket.socket()
        if buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", self.port))
        body = json.dumps({"input": texts}).encode()
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        return connection

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(program: str, *arguments: str):
    server = Server(program, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(30)
        server.process.stderr.close()


def read_all(connection: socket.socket) -> tuple[int, dict]:
    """The status and the content of the answer on a socket."""
    with connection:
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
