"""Dynamic batching: requests wait in a queue, one worker thread embeds them together, by token budget.

The worker takes the next batch itself the moment it is free, so that whatever came in meanwhile goes together. A batch
holds texts that are read alike (one key). Requests take turns text by text, so a long one delays a short one by about
one batch, and the oldest request's key comes first, so none starves. No asyncio here: threads and futures only.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Key = TypeVar("Key", bound=Hashable)
Vectors = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


class FullError(Exception):
    """The queue is full; `retry_after` says in how many seconds it is worth asking again."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} texts are waiting already; ask again in {retry_after} s.")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down and takes no new requests.")


class DeadError(Exception):
    """The worker has died, so nothing is embedded any more."""

    def __init__(self) -> None:
        super().__init__("The thread that embeds has died and the server stops; its log says why.")


@dataclass(eq=False)
class _Request(Generic[Key]):
    """Texts that came in together, or a call that wants the worker for itself."""

    future: Future[Any]
    key: Key | None
    texts: Sequence[str]
    costs: Sequence[int]
    call: Callable[[], Any] | None = None
    taken: int = 0
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)

    @property
    def weight(self) -> int:
        return max(len(self.texts), 1)


_Part = tuple[_Request[Key], int]
"""A request and how many of its texts, from the first that was not taken yet, are in a batch."""


class Batcher(Generic[Key]):
    """Embeds the texts of many requests in one thread.

    `encode(texts, key)` gives (N, D) vectors; it runs in the worker thread only. `on_batch(texts, tokens, seconds)` is
    told of every batch, in the same thread. `on_death()` is told once when the worker dies, after every request that
    waits has failed; an exception of the kinds in `fatal` is its death too, any other fails its request only.
    """

    def __init__(
        self,
        encode: Callable[[list[str], Key], Vectors],
        *,
        max_batch_tokens: int,
        max_queue: int,
        on_batch: Callable[[int, int, float], None] = lambda texts, tokens, seconds: None,
        on_death: Callable[[], None] = lambda: None,
        fatal: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._encode = encode
        self._max_batch_tokens = max_batch_tokens
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._on_death = on_death
        self._fatal = fatal
        self._dead = False
        self._in_hand: list[_Part[Key]] = []
        self._waiting: deque[_Request[Key]] = deque()
        self._open = 0
        self._open_tokens = 0
        self._tokens_a_second = 0.0
        self._closing = False
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def start(self) -> None:
        """Start the worker; after a close, a new one."""
        self._closing = self._dead = False
        self._worker = threading.Thread(target=self._work, name="embedding", daemon=True)
        self._worker.start()

    def close(self) -> None:
        """Take no more requests, finish those that are there, and stop the worker."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()

    @property
    def alive(self) -> bool:
        """Whether requests are taken and worked on."""
        return self._worker is not None and self._worker.is_alive() and not self._closing and not self._dead

    @property
    def open_texts(self) -> int:
        """How many texts were taken in and not answered yet."""
        return self._open

    def embed(self, texts: Sequence[str], costs: Sequence[int], key: Key) -> Future[Vectors]:
        """Queue texts, `costs` being the tokens of each; a cancelled future's texts are dropped.

        Raises FullError where too many are waiting, ClosedError while shutting down.
        """
        return self._queue(_Request(Future(), key, texts, costs))

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue a function that needs the model for itself; raises what `embed` raises."""
        return self._queue(_Request(Future(), None, (), (), function))

    def _queue(self, request: _Request[Key]) -> Future[Any]:
        with self._changed:
            if self._dead:
                raise DeadError
            if self._closing:
                raise ClosedError
            # a request larger than the queue is taken when nothing else waits: refused for ever it must not be
            if self._open and self._open + request.weight > self._max_queue:
                raise FullError(self._open, self._seconds_left())
            self._open += request.weight
            self._open_tokens += sum(request.costs)
            self._waiting.append(request)
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._finish(request))
        return request.future

    def _finish(self, request: _Request[Key]) -> None:
        with self._changed:
            self._open -= request.weight
            self._open_tokens -= sum(request.costs)

    def _seconds_left(self) -> int:
        """Return when half of what waits will be done, at the speed of the last batches."""
        if not self._tokens_a_second:
            return 1
        return min(max(math.ceil(self._open_tokens / self._tokens_a_second / 2), 1), 60)

    def _work(self) -> None:
        try:
            while (batch := self._take()) is not None:
                self._in_hand = batch
                if batch:
                    self._answer(batch)
        except BaseException:  # whatever ends this thread must not leave anybody waiting
            logger.critical("The thread that embeds has died; the server stops.", exc_info=True)
            self._bury()

    def _bury(self) -> None:
        """Fail whatever waits, and say that nothing is embedded any more."""
        with self._changed:
            self._dead = True
            left = [*(request for request, _ in self._in_hand), *self._waiting]
            self._waiting.clear()
        for request in left:
            _fail(request.future, DeadError())
        self._on_death()

    def _take(self) -> list[_Part[Key]] | None:
        """Wait for work and return the next batch; None when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            # a future may be cancelled, or have failed with an earlier part
            live = deque(request for request in self._waiting if not request.future.done())
            self._waiting = live
            if not live:
                return None if self._closing else []
            first = live[0]
            if first.call is not None:
                live.popleft()
                return [(first, 0)]
            batch = self._fill([request for request in live if request.call is None and request.key == first.key])
            chosen = {id(request) for request, _ in batch}
            rest = [request for request in live if id(request) not in chosen]
            # what took part and is not done goes behind the others
            again = [request for request, _ in batch if request.taken < len(request.texts)]
            self._waiting = deque([*rest, *again])
            return batch

    def _fill(self, requests: list[_Request[Key]]) -> list[_Part[Key]]:
        """Take texts, one from each request in turn, until the token budget is full; at least one."""
        counts = dict.fromkeys(map(id, requests), 0)
        spent, turn = 0, [request for request in requests if request.texts]
        while turn:
            still: list[_Request[Key]] = []
            for request in turn:
                cost = request.costs[request.taken]
                if spent and spent + cost > self._max_batch_tokens:
                    still = []
                    break
                spent += cost
                request.taken += 1
                counts[id(request)] += 1
                if request.taken < len(request.texts):
                    still.append(request)
            turn = still
        return [(request, counts[id(request)]) for request in requests if counts[id(request)]]

    def _answer(self, batch: list[_Part[Key]]) -> None:
        first = batch[0][0]
        if first.call is not None:
            _run(first.call, first.future)
            return
        try:
            self._embed_parts(batch)
        except Exception as error:
            if isinstance(error, self._fatal):
                raise
            if len(batch) == 1:
                _fail(first.future, error)
                return
            # one request must not fail its companions
            logger.warning("A batch of %d requests failed (%s); each is tried alone.", len(batch), error)
            for part in batch:
                self._answer([part])

    def _embed_parts(self, batch: list[_Part[Key]]) -> None:
        texts = [text for request, count in batch for text in request.texts[request.taken - count : request.taken]]
        tokens = sum(sum(request.costs[request.taken - count : request.taken]) for request, count in batch)
        key = batch[0][0].key
        assert key is not None
        start = time.perf_counter()
        vectors = self._encode(texts, key)
        seconds = time.perf_counter() - start
        rate = tokens / max(seconds, 1e-9)
        self._tokens_a_second = rate if not self._tokens_a_second else 0.8 * self._tokens_a_second + 0.2 * rate
        self._on_batch(len(texts), tokens, seconds)
        row = 0
        for request, count in batch:
            request.vectors.append(vectors[row : row + count])
            row += count
            if request.taken == len(request.texts):
                _give(request.future, np.concatenate(request.vectors))


def _run(call: Callable[[], Any], future: Future[Any]) -> None:
    try:
        result = call()
    except Exception as error:
        _fail(future, error)
    else:
        _give(future, result)


# a client may go, which cancels its future, at any moment
def _give(future: Future[Any], result: object) -> None:
    with suppress(InvalidStateError):
        future.set_result(result)


def _fail(future: Future[Any], error: Exception) -> None:
    with suppress(InvalidStateError):
        future.set_exception(error)
