"""The Encoder: what `model.encode` returns, faster.

N texts, D width of a vector.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings, truncate_embeddings

from antiphon.encoding.kernels.attention import CALLS
from antiphon.encoding.kernels.linear import LINEARS
from antiphon.encoding.runner import Runner
from antiphon.encoding.support import CHECKED, Check, checked, fault, is_supported, unsupported_reason
from antiphon.encoding.tokenised import Reading
from antiphon.errors import ConfigError, ModelError
from antiphon.model.parity import check_finite
from antiphon.model.prompts import prompt_name_of, prompt_of
from antiphon.text.template import Side
from antiphon.text.tokens import check_texts

Vectors = npt.NDArray[np.float32]
Linear = Literal["plain", "prepacked", "float8"]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
WINDOW = 2048
"""Texts that `encode_iter` draws, sorts and packs together."""

_LONG = tuple(f"{word} " * (60 + 9 * number) for number, word in enumerate(("Alpha", "Beta", "Gamma", "Delta")))
"""Texts beside which no prefix is worth its keys."""

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
        compile: bool = False,
        attention: str | None = None,
        linear: Linear = "plain",
    ) -> None:
        """Check the model; `budget` is the tokens of a forward pass, None finds it by a short probe.

        `compile` compiles the layers here, by `torch.compile`, which needs a C++ compiler on a CPU; `compile_seconds`
        is how long that took. `linear` is how layers multiply by their weights: "prepacked" lays them out for a CPU
        (the same sums, the layers' weights held twice), "float8" rounds weights and states to 8 bits, by how much
        `error` says. Where compiling or such layers fail, one warning says why and the layers run as they are.
        `attention` is "sdpa", "matmul" or "varlen", None takes the fastest that works. Raises ConfigError for a budget
        below 1, and for an attention or linear that there is not.
        """
        if attention is not None and attention not in CALLS:
            raise ConfigError(f"There is no attention {attention!r}; take one of {', '.join(CALLS)}.")
        if linear not in ("plain", *LINEARS):
            raise ConfigError(f"There is no linear {linear!r}; take one of plain, {', '.join(LINEARS)}.")
        if budget is not None and budget < 1:
            raise ConfigError(f"budget is {budget}; a whole number of at least 1 token is wanted.")
        self.model = model
        self.compile_seconds: float | None = None
        self.error: float | None = None
        """Error against spread of a few texts' vectors, measured when the Encoder was made; None if unknown."""
        self.reason: str | None = None
        """Why texts go through `model.encode`, as a sentence; None where they do not."""
        self.fault: str | None = None
        """What is faster, supported for this model or asked for, and yet off, as a sentence; None where nothing is."""
        self._runner: Runner | None = None
        why = Check(None, unsupported_reason(model))
        if why.reason is None:
            self._runner = Runner(model, budget=budget, attention=attention)
            why = self._choose_attention()
        if why.reason is not None:
            blamed = attention is None and not why.refused and is_supported(model)
            self._fall_back(why.reason, is_fault=blamed)
        elif compile or linear != "plain":
            self._take_other_layers(Runner(model, budget=budget, attention=attention, compiled=compile, linear=linear))

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

    def _fall_back(self, why: str, *, is_fault: bool) -> None:
        """Let texts go through `model.encode`, and say so."""
        self._runner = None
        self.reason = f"Texts go through model.encode, because {why}."
        if is_fault:
            self.reason = f"Texts go through model.encode, 2 to 5 times slower, because {why}; {fault(self.model)}."
            self.fault = self.reason
        logger.warning("%s", self.reason, extra={"once": True})

    def _choose_attention(self) -> Check:
        """Find the attention call whose vectors are the model's; return its check, or the last with a reason."""
        assert self._runner is not None
        while (check := checked(self.model, self._packed, self._plain)).reason and self._runner.refuse():
            logger.info("The next attention call is taken, because with this one %s.", check.reason)
        self.error = check.error
        return check

    def _take_other_layers(self, runner: Runner) -> None:
        """Take a runner with other layers instead of the plain one if it builds and its vectors are the model's."""
        assert self._runner is not None
        plain, self._runner = self._runner, runner
        runner.refused = plain.refused
        began = time.perf_counter()
        # three texts; and where layers compile, rows of several with a shared prefix, and long ones without
        errors = []
        for texts in (CHECKED, CHECKED * 4, _LONG) if runner.compiled else (CHECKED,):
            check = checked(self.model, self._packed, self._plain, texts, rounded=runner.linear == "float8")
            if check.reason is not None:
                self._runner = plain
                self.fault = f"The layers are not {_changed(runner)}, because {check.reason}; they run as they are."
                logger.warning("%s", self.fault, extra={"once": True})
                return
            errors.append(check.error)
        self.error = None if None in errors else max(error for error in errors if error is not None)
        if runner.compiled:
            self.compile_seconds = time.perf_counter() - began
        logger.info("The layers are %s, after %.1f s.", _changed(runner), time.perf_counter() - began)
        if runner.linear == "float8" and self.error is not None:
            logger.info("In 8-bit floats vectors are off by %.1e of their spread.", self.error)

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
        precision: str = "float32",
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
        distinct, places = _distinct(check_texts([texts] if isinstance(texts, str) else list(texts)))
        reading = self._reading(prompt, prompt_name, task)
        found = self._vectors(distinct, reading, normalize_embeddings, truncate_dim)
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
            distinct, places = _distinct(check_texts(window))
            found = self._vectors(distinct, reading, normalize_embeddings, truncate_dim)
            yield from found if places is None else found[places]

    def _of_side(self, task: Side, settings: dict[str, Any]) -> dict[str, Any]:
        if settings.get("prompt") is None and settings.get("prompt_name") is None:
            settings["prompt_name"] = prompt_name_of(self.model, task)
        return {**settings, "task": task}

    def _reading(self, prompt: str | None, prompt_name: str | None, task: Side | None) -> Reading:
        return Reading(prompt_of(self.model, None, prompt_name=prompt_name) if prompt is None else prompt, task)

    def _packed(self, texts: Sequence[str]) -> Vectors:
        assert self._runner is not None
        return _finished(self._runner.run(texts, self._reading(None, None, None)), False, self.model.truncate_dim)

    def _plain(self, texts: Sequence[str], batch_size: int) -> Vectors:
        raw = self.model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)
        return np.asarray(raw, dtype=np.float32)

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
            return _finished(self._runner.run(texts, reading), normalize, truncate_dim)
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


def _changed(runner: Runner) -> str:
    return " and ".join([*(["compiled"] if runner.compiled else []), *({runner.linear} - {"plain"})])


def _distinct(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.intp] | None]:
    """Return each text once, and where each of them all is among these; None where all are distinct."""
    number = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    if len(number) == len(texts):
        return list(texts), None
    return list(number), np.fromiter((number[text] for text in texts), dtype=np.intp, count=len(texts))


def _finished(vectors: torch.Tensor, normalize: bool, truncate_dim: int | None) -> Vectors:
    """Return vectors as numpy's, cut and of length 1 where that is asked for, in sentence-transformers' order."""
    if truncate_dim is not None:
        vectors = truncate_embeddings(vectors, truncate_dim)
    if normalize:
        vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
    finished: Vectors = vectors.float().numpy()
    return finished
