"""Load on a server: many clients for a minute, every answer checked against the Encoder's vectors of the same texts.

    python benchmarks/serving.py nano --clients 64 --seconds 60
    python benchmarks/serving.py nano --clients 64 --seconds 60 --trouble

It starts `antiphon serve MODEL` in a process of its own. The texts are the first 200 characters of the standard
library's docstrings, 1 to 8 of them in a request; each client sends the next request when it has its answer. The
offline figure is the Encoder's over the same texts with as many threads, taken before and after the load, for a
machine's speed changes; the figures by CPU time bear a machine that others use too. `--trouble` adds clients that close
their connection while they wait, clients that read a large answer drop by drop, clients that send half of their headers
and wait, and clients whose body drips; the server has to end the last two by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FEW, MANY = 1, 8
CHARACTERS = 200
STALLERS = {
    "half-sent headers": (b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Le", b"", 16),
    "dripped bodies": (b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{", b" ", 4),
}
"""Requests that never end: how each begins, what drips after it, and how many clients send it."""


@dataclass
class Tally:
    """What the clients saw."""

    offline: np.ndarray
    requests: int = 0
    texts: int = 0
    refused: int = 0
    lost: int = 0
    worst: float = 0.0
    seconds: list[float] = field(default_factory=list)
    killed: int = 0
    slow_read: int = 0
    turned_out: Counter[str] = field(default_factory=Counter)

    def answer(self, numbers: list[int], status: int, content: bytes, seconds: float) -> None:
        if status == 429:
            self.refused += 1
            return
        rows = json.loads(content)["data"] if status == 200 else []
        if [row["index"] for row in rows] != list(range(len(numbers))):
            self.lost += 1
            return
        vectors = np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])
        self.worst = max(self.worst, float(np.linalg.norm(vectors - self.offline[numbers], axis=1).max()))
        self.requests += 1
        self.texts += len(numbers)
        self.seconds.append(seconds)


def head(body: bytes) -> bytes:
    return (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )


def body_of(texts: list[str], encoding_format: str = "base64") -> bytes:
    return json.dumps({"input": texts, "encoding_format": encoding_format}).encode()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    said = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", said, re.IGNORECASE)[1])
    return int(said.split()[1]), await reader.readexactly(length)


async def client(number: int, port: int, texts: list[str], tally: Tally, until: float) -> None:
    """Ask, wait, check, ask again, over one connection."""
    draw = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    order: list[int] = []
    while time.perf_counter() < until:
        while len(order) < MANY:
            order += draw.sample(range(len(texts)), len(texts))
        numbers = [order.pop() for _ in range(draw.randint(FEW, MANY))]
        body = body_of([texts[n] for n in numbers])
        start = time.perf_counter()
        writer.write(head(body) + body)
        try:
            status, content = await answer_of(reader)
        except (OSError, asyncio.IncompleteReadError):
            tally.lost += 1
            return
        tally.answer(numbers, status, content, time.perf_counter() - start)
        if status == 429:
            await asyncio.sleep(0.2)
    writer.close()


async def killer(number: int, port: int, texts: list[str], tally: Tally, until: float) -> None:
    """Ask for much and go."""
    draw = random.Random(-number)
    while time.perf_counter() < until:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = body_of(draw.sample(texts, 100))
        writer.write(head(body) + body)
        await asyncio.sleep(draw.uniform(0, 0.2))
        writer.transport.abort()
        tally.killed += 1
        await asyncio.sleep(draw.uniform(0.5, 1.5))


async def dawdler(port: int, tally: Tally, ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Ask for megabytes and take a kilobyte a second of them; `ready` is set when they have begun to come."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    body = body_of([f"word {n % 50}" for n in range(1500)], "float")
    writer.write(head(body) + body)
    while not stop.is_set():
        tally.slow_read += len(await reader.read(1024))
        ready.set()
        await asyncio.sleep(1)
    writer.transport.abort()


async def staller(kind: str, port: int, tally: Tally, stop: asyncio.Event) -> None:
    """Begin a request, send ten drops a second and wait to be turned out, again and again."""
    begun, drop, _ = STALLERS[kind]
    while not stop.is_set():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        await _turned_out(reader, writer, stop, drop)
        tally.turned_out[kind] += not stop.is_set()


async def _turned_out(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stop: asyncio.Event, drop: bytes
) -> None:
    """Wait until the server closes the connection, sending a drop now and then."""
    closed = asyncio.ensure_future(reader.read())
    while not stop.is_set() and not closed.done():
        writer.write(drop)
        await asyncio.wait([closed], timeout=0.1)
    closed.cancel()
    writer.transport.abort()


async def load(options: argparse.Namespace, port: int, texts: list[str], tally: Tally) -> float:
    stop, begun = asyncio.Event(), [asyncio.Event() for _ in range(2 if options.trouble else 0)]
    slow = [asyncio.create_task(dawdler(port, tally, ready, stop)) for ready in begun]
    await asyncio.gather(*(ready.wait() for ready in begun))
    if options.trouble:
        slow += [
            asyncio.create_task(staller(kind, port, tally, stop))
            for kind, (*_, clients) in STALLERS.items()
            for _ in range(clients)
        ]
    start = time.perf_counter()
    until = start + options.seconds
    jobs = [client(number, port, texts, tally, until) for number in range(options.clients)]
    if options.trouble:
        jobs += [killer(number, port, texts, tally, until) for number in range(1, 5)]
    await asyncio.gather(*jobs)
    stop.set()
    await asyncio.gather(*slow, return_exceptions=True)
    return time.perf_counter() - start


def start_server(options: argparse.Namespace) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "antiphon.cli", "serve", options.model, "--port", "0"]
    command += ["--batch-tokens", str(options.max_batch_tokens)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://[\d.]+:(\d+)", line):
            return server, int(found[1])
    raise SystemExit("the server did not start")


def cpu_seconds(pid: int) -> float:
    """What a process has worked so far, on all its threads; Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread_of(vectors: np.ndarray) -> float:
    """The median distance between the vectors of two texts."""
    some = vectors[:1000]
    apart = np.sqrt(np.clip(2 - 2 * some @ some.T, 0, None))
    return float(np.median(apart[~np.eye(len(some), dtype=bool)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-batch-tokens", type=int, default=32768)
    parser.add_argument("--trouble", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from antiphon.data.docstrings import of_standard_library
    from antiphon.encoding import Encoder
    from antiphon.model.library_messages import quiet
    from antiphon.model.opening import open_model
    from antiphon.model.parity import LIMITS

    torch.set_num_threads(options.threads)
    quiet()
    texts = list(dict.fromkeys(entry.text[:CHARACTERS] for entry in of_standard_library()))
    texts = random.Random(0).sample(texts, min(options.texts, len(texts)))
    model = open_model(options.model)
    encoder = Encoder(model).require_fast()

    def offline() -> tuple[np.ndarray, float, float]:
        start, worked = time.perf_counter(), time.process_time()
        vectors = encoder.encode(texts, normalize_embeddings=True)
        return vectors, len(texts) / (time.perf_counter() - start), len(texts) / (time.process_time() - worked)

    offline()
    vectors, before, cpu_before = offline()
    tally = Tally(vectors)
    server, port = start_server(options)
    try:
        worked = cpu_seconds(server.pid)
        seconds = asyncio.run(load(options, port, texts, tally))
        worked = cpu_seconds(server.pid) - worked
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            busy = float(re.search(r"^antiphon_busy_seconds_total (\S+)", answer.read().decode(), re.MULTILINE)[1])
    finally:
        server.send_signal(signal.SIGTERM)
        ended = server.wait(120)
    _, after, cpu_after = offline()
    rate, base = tally.texts / seconds, (before + after) / 2
    error = tally.worst / spread_of(vectors)
    limit = LIMITS[str(model.dtype).removeprefix("torch.")]
    waits = np.percentile(tally.seconds, [50, 99, 100])
    print(f"{options.model}, {options.clients} clients, {seconds:.0f} s, {options.threads} thread(s)")
    print(f"load average of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"answers {tally.requests:,} with {tally.texts:,} texts; lost {tally.lost}, refused (429) {tally.refused}")
    print(f"error against spread {error:.1e} (limit {limit:.0e}): {'equal' if error <= limit else 'NOT equal'}")
    print(f"texts/s {rate:.1f}; Encoder offline {before:.1f} before, {after:.1f} after; {rate / base:.0%} of its mean")
    cpu, cpu_base = tally.texts / worked, (cpu_before + cpu_after) / 2
    print(f"texts per CPU second {cpu:.1f}; Encoder offline {cpu_base:.1f}; {cpu / cpu_base:.0%} of it")
    print(f"the model worked {busy / seconds:.0%} of the time")
    print(
        "latency: "
        + ", ".join(f"{name} {wait:.2f} s" for name, wait in zip(("p50", "p99", "worst"), waits, strict=True))
    )
    if options.trouble:
        print(f"killed clients {tally.killed}; slow readers took {tally.slow_read:,} bytes in all")
        print("turned out by the server: " + ", ".join(f"{tally.turned_out[kind]} {kind}" for kind in STALLERS))
    print(f"the server ended with {ended}")
    turned_out = not options.trouble or options.seconds < 60 or all(tally.turned_out[kind] for kind in STALLERS)
    sys.exit(0 if error <= limit and not tally.lost and not ended and turned_out else 1)


if __name__ == "__main__":
    main()
