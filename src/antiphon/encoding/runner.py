"""Runs distinct texts through the view of a model: read ahead, packed, with the shared prefix.

N texts, B texts of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from threading import Lock

import torch
from sentence_transformers import SentenceTransformer

from antiphon import compat
from antiphon.encoding.attention_choice import fastest_first
from antiphon.encoding.budget import budget
from antiphon.encoding.decoder import Decoder, ExecutionMode
from antiphon.encoding.forward import vectors_of
from antiphon.encoding.kernels.attention import candidates
from antiphon.encoding.packing import Batch, batches, end_to_end
from antiphon.encoding.prefix import Prefix, PrefixCache
from antiphon.encoding.tokenised import Reading, Tokens, common, read, shared_by_probes
from antiphon.model.process_memory import keep_few_kernels, keep_heap

WINDOW = 2048
"""Texts that are tokenised, sorted and packed together, while the window before them runs."""
LEAST_SAVED = 0.03
"""The part of the tokens that a shared prefix must save."""
PROBE_FROM = 16384
"""Tokens of a call from which on a probe of the budget pays; before, it is `BEFORE_PROBE`."""
BEFORE_PROBE = 2048
REMEMBERED = 64
COUNTED = 64
"""Texts that are tokenised to tell how many tokens many have."""


class Runner:
    """A model's view, its prefixes and its budget."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        budget: int | None,
        attention: str | None = None,
        compiled: bool = False,
        linear: str = "plain",
        widen: bool | None = None,
    ) -> None:
        """`attention` is the only call that is tried; None takes the fastest that was not refused.

        `widen` has 16 bits computed with in float32; None does so on a processor that multiplies no such numbers.
        """
        self.model = model
        self.budget = budget
        self.attention = attention
        self.compiled = compiled
        self.linear = linear
        self.widen = widen
        self.refused: set[str] = set()
        self._fastest: tuple[tuple[torch.device, torch.dtype], tuple[str, ...]] | None = None
        keep_heap()
        keep_few_kernels()
        self._lock = Lock()
        self._state: tuple[object, ...] = ()
        self._shared: dict[Reading, list[int]] = {}

    @torch.inference_mode()
    def run(self, texts: Sequence[str], reading: Reading, *, share: bool = True) -> torch.Tensor:
        """Return the vectors of texts (N, D) on the CPU, in the model's dtype; `share` lets them have a prefix."""
        with self._lock:
            self.model.eval()
            self._refresh()
            out: torch.Tensor | None = None
            # closed at once also where an interrupt ends the loop: no thread is left behind
            with closing(self._windows(texts, reading)) as windows:
                for numbers, tokens in windows:
                    parts = list(self._window([texts[number] for number in numbers], tokens, reading, share=share))
                    # brought over once a window: a GPU goes on to the next batch meanwhile
                    vectors = torch.cat([part for _, part in parts]).cpu()
                    if out is None:
                        out = torch.empty(len(texts), vectors.shape[1], dtype=vectors.dtype)
                    out[torch.tensor([numbers[place] for places, _ in parts for place in places])] = vectors
            assert out is not None
            return out

    def _refresh(self) -> None:
        """Make the view and its prefixes anew where the model is not what it was."""
        state = _state(self.model)
        if state != self._state:
            self._state = state
            execution = ExecutionMode(self._call(), self.compiled, self.linear, self._wide())
            self._decoder = Decoder.of(self.model[0].model, execution)
            self._prefixes = PrefixCache()
            self._shared.clear()

    def _call(self) -> str:
        decoder = self.model[0].model
        dtype = torch.float32 if self._wide() else decoder.dtype
        if self.attention is not None:
            return self.attention
        if self._fastest is None or self._fastest[0] != (decoder.device, dtype):
            calls = fastest_first(candidates(decoder.device, dtype), decoder, dtype)
            self._fastest = (decoder.device, dtype), calls
        calls = self._fastest[1]
        return next((call for call in calls if call not in self.refused), calls[-1])

    def _wide(self) -> bool:
        decoder = self.model[0].model
        if decoder.dtype.itemsize >= torch.float32.itemsize or self.linear == "float8":
            return False
        return not compat.multiplies(decoder.device, decoder.dtype) if self.widen is None else self.widen

    @property
    def changes(self) -> str:
        """What was done to the layers, in words."""
        return " and ".join([*(["compiled"] if self.compiled else []), *({self.linear} - {"plain"})])

    @property
    def decoder(self) -> Decoder:
        """The view of the model as it is now."""
        self._refresh()
        return self._decoder

    def tokens(self, texts: Sequence[str], reading: Reading) -> int:
        """Return about how many tokens texts have, from some of them."""
        some = texts[:: max(1, len(texts) // COUNTED)]
        return len(texts) * sum(len(row.ids) for row in read(self.model[0], some, reading)) // max(1, len(some))

    @property
    def mode(self) -> str:
        """The attention call and what was done to the layers, in words."""
        linear = [] if self.linear == "plain" else [self.linear]
        changes = {"compiled": self.compiled, "in float32": self._wide()}
        return ", ".join([self._call(), *(word for word, so in changes.items() if so), *linear])

    def refuse(self) -> bool:
        """Take the next attention call instead of this one; return whether there was one."""
        before = self._call()
        self.refused.add(before)
        self._state = ()
        return self._call() != before

    def _windows(self, texts: Sequence[str], reading: Reading) -> Generator[tuple[list[int], list[Tokens]], None, None]:
        """Yield windows of texts, the longest first, tokenised one window ahead of what runs."""
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]

        def tokens(window: list[int]) -> list[Tokens]:
            return read(self.model[0], [texts[number] for number in window], reading)

        if len(windows) == 1:
            yield windows[0], tokens(windows[0])
            return
        with ThreadPoolExecutor(1, thread_name_prefix="antiphon-tokenise") as pool:
            ahead: Future[list[Tokens]] = pool.submit(tokens, windows[0])
            for number, window in enumerate(windows):
                ready = ahead.result()
                if number + 1 < len(windows):
                    ahead = pool.submit(tokens, windows[number + 1])
                yield window, ready

    def _window(
        self, texts: Sequence[str], tokens: Sequence[Tokens], reading: Reading, *, share: bool
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield the vectors (B, D) of a window batch by batch, with the texts' numbers in it."""
        empty = [number for number, row in enumerate(tokens) if not row.ids]
        if empty:
            yield empty, self._without_tokens([texts[number] for number in empty], reading)
        numbers = [number for number, row in enumerate(tokens) if row.ids]
        rows = [tokens[number] for number in numbers]
        if not rows:
            return
        prefix = self._prefix(rows, reading) if share else None
        before = 0 if prefix is None else len(prefix)
        lengths = [len(row.ids) - before for row in rows]
        if self.budget is None and sum(lengths) >= PROBE_FROM:
            self.budget = budget(self._decoder)
        for batch in self._batches(lengths, self.budget or BEFORE_PROBE):
            for part, vectors in self._run(batch, rows, prefix):
                yield [numbers[row] for row in part.texts], vectors

    def _batches(self, lengths: Sequence[int], budget: int) -> Iterator[Batch]:
        return (end_to_end if self._decoder.flat else batches)(lengths, budget)

    def _without_tokens(self, texts: Sequence[str], reading: Reading) -> torch.Tensor:
        """Return what sentence-transformers makes of texts without a token, beside one that has some."""
        features = self.model.preprocess([*texts, "."], prompt=reading.prompt, task=reading.task)
        features = {
            key: value.to(self.model.device) if torch.is_tensor(value) else value for key, value in features.items()
        }
        vectors: torch.Tensor = self.model(features)["sentence_embedding"][: len(texts)]
        return vectors

    def _run(
        self, batch: Batch, texts: Sequence[Tokens], prefix: Prefix | None
    ) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Yield a batch's vectors, in smaller batches where the memory does not suffice; the budget stays smaller."""
        size = batch.rows * batch.width
        outgrown = self.budget is not None and size > self.budget and not batch.alone
        vectors = None if outgrown else self._vectors(batch, texts, prefix)
        if vectors is not None:
            yield batch, vectors
            return
        if not outgrown:
            self.budget = max(1, size // 2)
        numbers = batch.texts
        for part in self._batches([place.length for place in batch.placed], self.budget or 1):
            part.renumber(numbers)
            yield from self._run(part, texts, prefix)

    def _vectors(self, batch: Batch, texts: Sequence[Tokens], prefix: Prefix | None) -> torch.Tensor | None:
        """Return the vectors (B, D) of a batch, or None where the memory did not suffice for its several texts."""
        try:
            return vectors_of(self.model, self._decoder, batch, texts, prefix)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or batch.alone:
                raise
        # here, where the error no longer holds what was allocated
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _prefix(self, texts: Sequence[Tokens], reading: Reading) -> Prefix | None:
        """Return the prefix that all of the texts share, if it saves enough."""
        if not self._decoder.causal:
            return None
        if reading not in self._shared:
            if len(self._shared) >= REMEMBERED:
                self._shared.clear()
            self._shared[reading] = shared_by_probes(self.model[0], reading)
        ids = common([self._shared[reading], *(tokens.ids for tokens in texts)])
        shortest = min(len(tokens.ids) for tokens in texts)
        ids = ids[: shortest - 1]
        total = sum(len(tokens.ids) for tokens in texts)
        if not ids or len(ids) * len(texts) < LEAST_SAVED * total:
            return None
        return self._prefixes.get(self._decoder, ids)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error).lower()
    return "not enough memory" in words or "out of memory" in words or "can't allocate memory" in words


def _state(model: SentenceTransformer) -> tuple[object, ...]:
    """Return what changes when the weights, the modules or the adapters of the first module change."""
    module = model[0]
    decoder = module.model
    tensors = tuple((id(p), p.data_ptr(), compat.version_of(p)) for p in decoder.parameters())
    layers = tuple((id(part), compat.adapters_acting(part)) for part in decoder.modules())
    return tensors, layers, getattr(decoder.config, "is_causal", True), id(module.tokenizer), module.max_seq_length
