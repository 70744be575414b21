"""Connections that are half sent, half read or too large, and a worker that dies: on a real socket, in this process."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn

import antiphon
from antiphon.errors import ModelError
from antiphon.serving.app import create_app
from antiphon.serving.batching import Batcher, DeadError
from antiphon.serving.connections import DeadlineProtocol
from antiphon.serving.served_model import ServedModel
from antiphon.serving.server_process import run
from antiphon.serving.server_settings import ServerSettings
from antiphon.serving.sockets import bind

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SHORT = 0.4


class Hurried(DeadlineProtocol):
    """Deadlines that a test can wait for."""

    head_seconds = SHORT
    stall_seconds = SHORT


@contextmanager
def listening(model, **options):
    """A server in a thread; gives its port."""
    settings = ServerSettings(name="tiny", body_seconds=SHORT, max_body_bytes=100_000, **options)
    with bind("127.0.0.1", 0) as listener:
        app = create_app(model, settings)
        config = uvicorn.Config(app, http=Hurried, log_level="warning", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo", max_tokens=64)


@pytest.fixture(scope="module")
def port(model):
    with listening(model) as found:
        yield found


def connected(port) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(30)
    return connection


def until_closed(connection) -> bytes:
    """All that the server says until it closes; a reset is a close too."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def request(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def dripping(connection, bytes_: bytes) -> bytes:
    """Send a byte at a time until the server closes; what it said."""
    said = b""
    connection.setblocking(False)
    for one in range(2000):
        try:
            connection.send(bytes_[one : one + 1] or b"a")
        except (BrokenPipeError, ConnectionResetError):
            return said
        time.sleep(0.01)
        try:
            part = connection.recv(65536)
        except BlockingIOError:
            continue
        except ConnectionResetError:
            return said
        if not part:
            return said
        said += part
    raise AssertionError("the server never closed")


def works(port) -> bool:
    with connected(port) as connection:
        connection.sendall(request(b'{"input": "a"}', b"Connection: close\r\n"))
        return b"200 OK" in until_closed(connection).partition(b"\r\n")[0]


@pytest.mark.parametrize("sent", [b"", b"POST /v1/emb", HEAD, HEAD + b"Content-Length: 5\r\n"])
def test_half_a_head_is_given_up(port, sent):
    with connected(port) as connection:
        connection.sendall(sent)
        said = until_closed(connection)
    if sent:
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"]["message"] == "The headers did not arrive in time."
    assert works(port)


def test_a_dripped_head_is_given_up(port):
    with connected(port) as connection:
        assert b"408" in dripping(connection, b"GET / HTTP/1.1\r\nX: " + b"a" * 5000)
    assert works(port)


def test_a_dripped_body_is_given_up_by_total_time(port):
    with connected(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 50000\r\n\r\n")
        said = dripping(connection, b'{"input": "' + b"a" * 5000)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not arrive within 0.4 s" in said
    assert b"connection: close" in said.lower()
    assert works(port)


def test_a_second_request_that_is_half_sent_is_given_up(port):
    with connected(port) as connection:
        connection.sendall(request(b'{"input": "a"}'))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        connection.sendall(b"POST /v1/embed")
        until_closed(connection)
    assert works(port)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"Content-Length: 200000000\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", 413),
        (HEAD.replace(b"localhost", b"evil.example") + b"Content-Length: 200000000\r\n\r\n", 421),
        (HEAD + b"Content-Encoding: br\r\nContent-Length: 200000000\r\n\r\n", 415),
    ],
    ids=["by its length", "in chunks", "for another", "packed"],
)
def test_a_body_that_is_refused_is_not_swallowed(port, head, status):
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n" if b"chunked" in head else b"a" * 0x10000
    sent = 0
    with connected(port) as connection:
        connection.sendall(head)
        try:
            for _ in range(2000):
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        said = until_closed(connection)
    assert sent < 100_000_000, "the server read on behind its answer"
    assert not said or said.startswith(b"HTTP/1.1 %d " % status)
    assert works(port)


def test_a_refused_request_says_so_and_closes(port):
    with connected(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 200000000\r\n\r\n")
        said = until_closed(connection)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()


def test_a_key_that_is_wrong_ends_the_connection_where_a_body_follows(model):
    with listening(model, api_key="right") as port, connected(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 200000000\r\n\r\n")
        said = until_closed(connection)
        assert said.startswith(b"HTTP/1.1 401 ")


def test_an_answer_that_nobody_takes_is_given_up(port):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    with connection:
        connection.sendall(request(json.dumps({"input": ["a"] * 2048 + []}).encode()) * 8)
        time.sleep(SHORT * 4)
        # what was in the kernel's buffers comes, the rest does not
        assert len(until_closed(connection)) < 8 * 2048 * 32 * 8
    assert works(port)


class Fatal(BaseException):
    """What no handler of a request catches."""


def test_a_worker_that_dies_leaves_nobody_waiting():
    entered = threading.Event()
    go = threading.Event()
    told = []

    def encode(texts, key):
        entered.set()
        go.wait(30)
        raise Fatal

    batcher = Batcher(encode, max_batch_tokens=10, max_queue=100, on_death=lambda: told.append(True))
    batcher.start()
    futures = [batcher.embed(["a"] * 3, [5, 5, 5], key) for key in ("one", "two", "three")]
    futures.append(batcher.call(lambda: 1))
    assert entered.wait(30)
    go.set()
    for future in futures:
        with pytest.raises(DeadError):
            future.result(30)
    assert told == [True]
    assert not batcher.alive
    with pytest.raises(DeadError):
        batcher.embed(["a"], [1], "one")
    batcher.close()
    assert batcher.open_texts == 0


def test_an_error_that_is_fatal_ends_the_worker_and_any_other_only_its_request():
    class DeviceError(RuntimeError):
        pass

    def encode(texts, key):
        raise DeviceError if key == "device" else ValueError(key)

    batcher = Batcher(encode, max_batch_tokens=10, max_queue=100, fatal=(DeviceError,))
    batcher.start()
    with pytest.raises(ValueError, match="text"):
        batcher.embed(["a"], [1], "text").result(30)
    assert batcher.alive
    with pytest.raises(DeadError):
        batcher.embed(["a"], [1], "device").result(30)
    batcher.close()


def test_a_worker_that_dies_takes_the_server_down(model, monkeypatch, caplog):
    """Every request is answered, the log has a line, and the process ends with an error."""
    encode = ServedModel.encode

    def dying(self, texts, reading):
        if "die" in texts:
            raise Fatal
        return encode(self, texts, reading)

    monkeypatch.setattr(ServedModel, "encode", dying)
    failures, ready = [], threading.Event()
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]

    def serve():
        try:
            run(model, listener, ServerSettings(name="tiny"), on_ready=ready.set)
        except ModelError as error:
            failures.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(60)
    assert works(port)
    with caplog.at_level(logging.CRITICAL, "antiphon"), connected(port) as first, connected(port) as second:
        first.sendall(request(json.dumps({"input": ["die"] * 50}).encode()))
        second.sendall(request(json.dumps({"input": ["die", "b"]}).encode()))
        said = [until_closed(connection) for connection in (first, second)]
        thread.join(60)
    listener.close()
    assert not thread.is_alive()
    assert "The thread that embeds has died" in failures[0]
    assert "The thread that embeds has died; the server stops." in caplog.text
    for answer in said:
        assert not answer or answer.startswith(b"HTTP/1.1 503 ")
    assert any(b"worker_died" in answer for answer in said)


def test_answers_are_right_beside_all_this(port, model):
    half = [connected(port) for _ in range(20)]
    for connection in half:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: loc")
    with connected(port) as connection:
        connection.sendall(request(b'{"input": "one text"}', b"Connection: close\r\n"))
        body = until_closed(connection).partition(b"\r\n\r\n")[2]
    found = np.array(json.loads(body)["data"][0]["embedding"])
    assert np.allclose(found, model.encode("one text", normalize_embeddings=True), atol=1e-5)
    for connection in half:
        connection.close()
