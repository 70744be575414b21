"""The Encoder: what `model.encode` returns, faster.

N texts, D width of a vector.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings

from antiphon.encoding.check import Check, Judge, Vectors
from antiphon.encoding.choice import Choice
from antiphon.encoding.execution import Attention, Precision, check_layers, check_settings, choose_attention, linear_for
from antiphon.encoding.finished import distinct, finished, plain
from antiphon.encoding.runner import Runner
from antiphon.encoding.support import fault, is_supported, unsupported_reason
from antiphon.encoding.tokenised import Reading
from antiphon.errors import ConfigError, ModelError
from antiphon.model.parity import check_finite
from antiphon.model.prompts import prompt_name_of, prompt_of
from antiphon.text.template import Side
from antiphon.text.tokens import check_texts

Linear = Literal["plain", "prepacked", "float8"]
Compile = bool | Literal["auto"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WINDOW = 2048
"""Texts that `encode_iter` draws, sorts and packs together."""

logger = logging.getLogger(__name__)


class Encoder:
    """Embeds texts with a sentence-transformers model over a decoder, ours or not: the same vectors, faster.

    What stands before every text is run once, texts are packed by tokens, identical texts run once, and the last layer
    runs only where it is pooled. A model that cannot be run so is handed to `model.encode`; `reason` says why.

    One call runs at a time; the model's weights may change between calls, its modules too.

    Example:
        >>> import antiphon
        >>> encoder = antiphon.Encoder(antiphon.build("nano"))
        >>> encoder.encode(["sort a list", "open a file"]).shape
        (2, 256)
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        budget: int | None = None,
        compile: Compile = False,
        attention: Attention | None = None,
        linear: Linear | None = None,
        widen: bool | None = None,
    ) -> None:
        """Check the model; `budget` is the tokens of a forward pass, None finds it by a short probe.

        `compile` compiles the layers here, by `torch.compile`, which needs a C++ compiler on a CPU; `compile_seconds`
        is how long that took. "auto" does so later, once the texts that came or are expected win back what it costs.
        `linear` is how layers multiply by their weights: "plain", "prepacked" lays them out for a CPU (the same sums,
        the weights held twice), "float8" rounds weights and states to 8 bits, by how much `error` says; None is plain,
        or what goes best with compiled layers. Where compiling or such layers fail, one warning says why and the layers
        run as they are.
        `widen` computes with weights of 16 bits in float32, held again, twice as wide; None does so on a processor
        without 16-bit products. `attention` is "sdpa", "matmul" or "varlen", None takes the fastest that
        works. Raises ConfigError for a budget below 1, an attention or a linear that there is not.
        """
        check_settings(model, attention, linear, budget)
        self.model = model
        self.compile_seconds: float | None = None
        self.check = Check(unsupported_reason(model))
        """How far the vectors of a few texts are from float32, and sentence-transformers' own."""
        self.reason: str | None = None
        """Why texts go through `model.encode`, as a sentence; None where they do not."""
        self.fault: str | None = None
        """What is faster, supported for this model or asked for, and yet off, as a sentence; None where nothing is."""
        self._runner: Runner | None = None
        self._later: Runner | None = None  # compiled layers that are taken once they pay
        self._seen = 0  # tokens that came while they were not
        self._judge = Judge(model, plain)
        if self.check.reason is None:
            self._runner = Runner(model, budget=budget, attention=attention, widen=widen)
            self.check = choose_attention(self._runner, self._judge)
        if self.check.reason is not None:
            blamed = attention is None and not self.check.refused and is_supported(model)
            self._fall_back(self.check.reason, is_fault=blamed)
            return
        runner = partial(Runner, model, budget=budget, attention=attention, widen=widen)
        if compile is True or linear not in (None, "plain"):
            self._take_other_layers(runner(compiled=compile is True, linear=linear or linear_for(model)))
        if compile == "auto":
            self._later = runner(compiled=True, linear=linear or linear_for(model))

    def require_fast(self) -> Encoder:
        """Return the Encoder itself; raise a ModelError where its `fault` says that something faster is off.

        Example:
            >>> import antiphon
            >>> antiphon.Encoder(antiphon.build("nano")).require_fast().fault is None
            True
        """
        if self.fault is not None:
            raise ModelError(self.fault)
        return self

    def expect(self, number: int, sample: Sequence[str], *, task: Side | None = None) -> bool:
        """Decide, with `compile="auto"`, for so many texts like a sample's; return whether layers are compiled.

        Example:
            >>> import antiphon
            >>> antiphon.Encoder(antiphon.build("nano")).expect(1_000, ["a text", "and another"])
            False
        """
        if self._later is not None and self._runner is not None and sample:
            tokens = self._runner.tokens(sample, self._reading(None, None, task)) * number // len(sample)
            self._compile_if_it_pays(tokens)
        self._later = None
        return self.compile_seconds is not None

    def _compile_if_it_pays(self, tokens: int) -> None:
        """Take compiled layers for so many tokens if that is faster in all, and leave them if they are not faster."""
        plain, later = self._runner, self._later
        if plain is None or later is None or not (choice := Choice(plain.decoder, later.mode)).pays(tokens):
            return
        self._later = None
        self._take_other_layers(later, asked=False)
        gain = None if self.compile_seconds is None else choice.measure(later.decoder, self.compile_seconds)
        if gain is not None and gain.compiled >= gain.plain:
            logger.info("Compiled layers are no faster here (%.0f us a token), so they are left.", gain.compiled * 1e6)
            self._runner, self.compile_seconds = plain, None

    def _fall_back(self, why: str, *, is_fault: bool) -> None:
        """Let texts go through `model.encode`, and say so."""
        self._runner = None
        self.reason = f"Texts go through model.encode, because {why}."
        if is_fault:
            self.reason = f"Texts go through model.encode, 2 to 5 times slower, because {why}; {fault(self.model)}."
            self.fault = self.reason
        logger.warning("%s", self.reason, extra={"once": True})

    def _take_other_layers(self, runner: Runner, *, asked: bool = True) -> None:
        """Take a runner with other layers instead of the plain one if it builds and its vectors are near enough."""
        assert self._runner is not None
        plain, self._runner = self._runner, runner
        runner.refused = plain.refused
        began = time.perf_counter()
        worst = check_layers(runner, self._judge)
        if worst.reason is not None:
            self._runner = plain
            message = f"The layers are not {runner.changes}, because {worst.reason}; they run as they are."
            if asked:
                self.fault = message
            logger.log(logging.WARNING if asked else logging.INFO, "%s", message, extra={"once": True})
            return
        self.check = worst
        if runner.compiled:
            self.compile_seconds = time.perf_counter() - began
        logger.info("The layers are %s, after %.1f s.", runner.changes, time.perf_counter() - began)
        if runner.linear == "float8" and self.error is not None:
            logger.info("In 8-bit floats vectors are off by %.1e of their spread.", self.error)

    @property
    def error(self) -> float | None:
        """Error against spread of a few texts' vectors, against float32; None where it could not be told."""
        return self.check.error

    @property
    def mode(self) -> str:
        """How texts run, in words: the attention call and what was done to the layers, or "model.encode"."""
        return "model.encode" if self._runner is None else self._runner.mode

    @property
    def budget(self) -> int | None:
        """The tokens of a forward pass; None where they are not settled yet or `model.encode` runs."""
        return None if self._runner is None else self._runner.budget

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        task: Side | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
    ) -> Any:
        """Return the vectors (N, D) in the texts' order, or (D,) for a single string; every parameter as in `encode`.

        Raises DataError for a text that is no string, ConfigError for a prompt or precision that there is not,
        ModelError for a vector that is not finite.

        Example:
            >>> import antiphon
            >>> encoder = antiphon.Encoder(antiphon.build("nano", "echo"))
            >>> vectors = encoder.encode(["sort a list", "open a file"], prompt="Find the function", truncate_dim=64)
            >>> vectors.shape, vectors.dtype
            ((2, 64), dtype('float32'))
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"There is no precision {precision!r}; take one of {', '.join(PRECISIONS)}.")
        single = isinstance(texts, str)
        once, places = distinct(check_texts([texts] if isinstance(texts, str) else list(texts)))
        reading = self._reading(prompt, prompt_name, task)
        found = self._vectors(once, reading, normalize_embeddings, truncate_dim)
        vectors = found if places is None else found[places]
        if precision != "float32" and len(vectors):
            vectors = quantize_embeddings(vectors, precision=precision)
        return vectors[0] if single else vectors

    def encode_query(self, texts: str | Sequence[str], **settings: Any) -> Any:
        """Return the vectors of queries: `encode` with the query's prompt and task.

        Example:
            >>> import antiphon
            >>> model = antiphon.build("nano", "echo", prompts={"query": "Find the function"})
            >>> antiphon.Encoder(model).encode_query(["sort a list"]).shape
            (1, 256)
        """
        return self.encode(texts, **self._of_side("query", settings))

    def encode_document(self, texts: str | Sequence[str], **settings: Any) -> Any:
        """Return the vectors of documents: `encode` with the documents' prompt and task.

        Example:
            >>> import antiphon
            >>> antiphon.Encoder(antiphon.build("nano")).encode_document("Return a sorted list.").shape
            (256,)
        """
        return self.encode(texts, **self._of_side("document", settings))

    def encode_iter(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        task: Side | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Iterator[Vectors]:
        """Yield the vector (D,) of every text in order; memory does not grow with the texts.

        Example:
            >>> import antiphon
            >>> encoder = antiphon.Encoder(antiphon.build("nano"))
            >>> sum(len(vector) for vector in encoder.encode_iter(f"text {number}" for number in range(3)))
            768
        """
        reading = self._reading(prompt, prompt_name, task)
        iterator = iter(texts)
        while window := list(islice(iterator, WINDOW)):
            once, places = distinct(check_texts(window))
            found = self._vectors(once, reading, normalize_embeddings, truncate_dim)
            yield from found if places is None else found[places]

    def _of_side(self, task: Side, settings: dict[str, Any]) -> dict[str, Any]:
        if settings.get("prompt") is None and settings.get("prompt_name") is None:
            settings["prompt_name"] = prompt_name_of(self.model, task)
        return {**settings, "task": task}

    def _reading(self, prompt: str | None, prompt_name: str | None, task: Side | None) -> Reading:
        return Reading(prompt_of(self.model, None, prompt_name=prompt_name) if prompt is None else prompt, task)

    def _vectors(self, texts: Sequence[str], reading: Reading, normalize: bool, truncate_dim: int | None) -> Vectors:
        """Return the vectors (N, D) of distinct texts."""
        truncate_dim = self.model.truncate_dim if truncate_dim is None else truncate_dim
        if not texts:
            width = truncate_dim or self.model.get_embedding_dimension() or 0
            return np.zeros((0, width), dtype=np.float32)
        vectors = self._computed(texts, reading, normalize, truncate_dim)
        check_finite(vectors, texts, str(self.model.dtype))
        return vectors

    def _computed(self, texts: Sequence[str], reading: Reading, normalize: bool, truncate_dim: int | None) -> Vectors:
        if self._runner is not None:
            if self._later is not None:
                self._seen += self._runner.tokens(texts, reading)
                self._compile_if_it_pays(self._seen)
            return finished(self._runner.run(texts, reading), normalize, truncate_dim)
        kwargs: dict[str, Any] = {} if reading.task is None else {"task": reading.task}
        raw = self.model.encode(
            list(texts),
            prompt=reading.prompt or "",
            normalize_embeddings=normalize,
            truncate_dim=truncate_dim,
            show_progress_bar=False,
            **kwargs,
        )
        return np.asarray(raw, dtype=np.float32)
