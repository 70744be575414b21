"""The queue of the server, with a model that is a function: nothing lost, nothing swapped, nobody starved."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.serving.batching import Batcher, ClosedError, FullError


def vectors_of(texts, key=""):
    """A vector that says which text it is of, under which key."""
    return np.array([[len(key), len(text), sum(map(ord, text))] for text in texts], dtype=np.float32)


class Recorder:
    """An encode that remembers its batches, and can be held back."""

    def __init__(self, poison: str | None = None):
        self.batches: list[tuple[str, list[str]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison = poison

    def __call__(self, texts, key):
        self.gate.wait(10)
        self.batches.append((key, list(texts)))
        if self.poison in texts:
            raise ValueError("poison")
        return vectors_of(texts, key)


@pytest.fixture
def made():
    open_ones = []

    def make(encode=vectors_of, *, max_batch_tokens=100, max_queue=1000):
        batcher = Batcher(encode, max_batch_tokens=max_batch_tokens, max_queue=max_queue)
        batcher.start()
        open_ones.append(batcher)
        return batcher

    yield make
    for batcher in open_ones:
        batcher.close()


def held(recorder, batcher):
    """Keep the worker busy with a first text until the gate opens."""
    recorder.gate.clear()
    first = batcher.embed(["first"], [1], "")
    while batcher._waiting:
        time.sleep(0.001)
    return first


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.sampled_from(["", "query"]), st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=9)),
        min_size=1,
        max_size=12,
    ),
    budget=st.integers(1, 80),
)
def test_every_request_gets_its_own_vectors_in_order(requests, budget):
    seen = []

    def encode(texts, key):
        seen.append((key, [len(text) for text in texts]))
        return vectors_of(texts, key)

    batcher = Batcher(encode, max_batch_tokens=budget, max_queue=10**6)
    futures = [batcher.embed(texts, [len(text) for text in texts], key) for key, texts in requests]
    batcher.start()
    for (key, texts), future in zip(requests, futures, strict=True):
        assert np.array_equal(future.result(10), vectors_of(texts, key))
    batcher.close()
    assert batcher.open_texts == 0
    assert sum(len(costs) for _, costs in seen) == sum(len(texts) for _, texts in requests)
    # a batch is within the budget, unless one text alone is not
    assert all(sum(costs) <= budget or len(costs) == 1 for _, costs in seen)


def test_many_threads_lose_and_swap_nothing(made):
    batcher = made()

    def ask(number):
        texts = [f"{number} {i}" for i in range(number % 7 + 1)]
        return np.array_equal(batcher.embed(texts, [10] * len(texts), "k").result(10), vectors_of(texts, "k"))

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(500)))


def test_a_long_request_lets_a_short_one_through(made):
    recorder = Recorder()
    batcher = made(recorder, max_batch_tokens=10)
    first = held(recorder, batcher)
    long = batcher.embed(["long"] * 100, [1] * 100, "")
    other = batcher.embed(["other"], [1], "another key")
    short = batcher.embed(["short"], [1], "")
    recorder.gate.set()
    for future in (first, long, other, short):
        future.result(10)
    order = [name for name in ("short", "other") for _, texts in recorder.batches[1:3] if name in texts]
    assert order == ["short", "other"]


def test_what_waits_is_embedded_together(made):
    recorder = Recorder()
    batcher = made(recorder)
    held(recorder, batcher)
    futures = [batcher.embed([f"text {n}"], [10], "") for n in range(10)]
    recorder.gate.set()
    for future in futures:
        future.result(10)
    assert [len(texts) for _, texts in recorder.batches] == [1, 10]


def test_a_full_queue_refuses_and_says_when(made):
    recorder = Recorder()
    batcher = made(recorder, max_queue=3)
    held(recorder, batcher)
    waiting = batcher.embed(["a", "b"], [1, 1], "")
    with pytest.raises(FullError, match="3 texts are waiting") as refused:
        batcher.embed(["c"], [1], "")
    assert refused.value.retry_after >= 1
    recorder.gate.set()
    waiting.result(10)
    # alone, a request larger than the queue is taken
    assert len(batcher.embed(["d"] * 9, [1] * 9, "").result(10)) == 9


def test_a_cancelled_request_is_not_embedded_and_makes_room(made):
    recorder = Recorder()
    batcher = made(recorder, max_queue=3)
    first = held(recorder, batcher)
    gone = batcher.embed(["gone", "gone"], [1, 1], "")
    assert gone.cancel()
    assert batcher.open_texts == 1
    recorder.gate.set()
    first.result(10)
    batcher.embed(["next"], [1], "").result(10)
    assert [texts for _, texts in recorder.batches] == [["first"], ["next"]]


def test_one_failure_fails_one_request(made):
    recorder = Recorder(poison="bad")
    batcher = made(recorder)
    held(recorder, batcher)
    good, bad = batcher.embed(["good"], [1], ""), batcher.embed(["bad"], [1], "")
    recorder.gate.set()
    assert np.array_equal(good.result(10), vectors_of(["good"]))
    with pytest.raises(ValueError, match="poison"):
        bad.result(10)
    assert batcher.alive


def test_a_call_runs_between_batches_and_its_error_is_its_own(made):
    batcher = made()
    assert batcher.call(lambda: threading.current_thread().name).result(10) == "embedding"
    with pytest.raises(ZeroDivisionError):
        batcher.call(lambda: 1 // 0).result(10)
    assert len(batcher.embed(["a"], [1], "").result(10)) == 1


def test_closing_finishes_what_waits_and_takes_no_more(made):
    recorder = Recorder()
    batcher = made(recorder)
    held(recorder, batcher)
    waiting = batcher.embed(["waiting"], [1], "")
    threading.Timer(0.05, recorder.gate.set).start()
    batcher.close()
    assert len(waiting.result(0)) == 1
    assert not batcher.alive
    with pytest.raises(ClosedError):
        batcher.embed(["late"], [1], "")
