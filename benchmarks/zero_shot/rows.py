"""Rows of the table: which passes a method joins and how, and what is kept of them, without the model.

N texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from zero_shot.passes import PASSES, Spent

import antiphon
from antiphon.evaluation.embedder import CountingEmbedder, Encode
from antiphon.evaluation.vector_store import Vectors, VectorStore
from antiphon.model.affine_maps import AffineMap, Moments, fit
from antiphon.model.calibration import head_of


@dataclass(frozen=True)
class Method:
    """The passes that are joined, each with its pooling ("" is the pass's own), and how."""

    passes: tuple[str, ...]
    pooling: str = ""
    join: str = "mean"
    """"mean" of the passes' vectors, "beside": one behind the other, or "minus": the first without the second."""

    def poolings(self) -> list[tuple[str, str]]:
        return [(name, self.pooling or PASSES[name].pooling) for name in self.passes]


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], axis=1)


JOINS: Mapping[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "mean": lambda parts: np.mean(parts, axis=0),
    "beside": _beside,
    "minus": lambda parts: parts[0] - parts[1],
}
QUESTIONS = ("topic", "feeling", "kind", "fact")
METHODS: Mapping[str, Method] = {
    "classical-write": Method(("classical",)),
    "classical-write, weighted mean": Method(("classical",), "weighted"),
    "classical-write, last token": Method(("classical",), "last"),
    "echo-rewrite": Method(("echo",)),
    "echo-rewrite, weighted mean": Method(("echo",), "weighted"),
    "echo-rewrite, last token": Method(("echo",), "last"),
    "echo-rewrite-matched": Method(("echo-matched",)),
    "echo, three copies": Method(("echo3",)),
    "PromptEOL": Method(("eol",)),
    "PromptEOL after echo": Method(("echo-eol",)),
    "MetaEOL, four questions": Method(QUESTIONS),
    "PromptEOL, token prepending": Method(("eol-prepended",)),
    "classical, backward attention": Method(("classical-backward",)),
    "echo, backward attention": Method(("echo-backward",)),
    "contrastive prompts": Method(("eol", "irrelevant"), join="minus"),
    "echo beside PromptEOL": Method(("echo", "eol"), join="beside"),
    "classical beside PromptEOL": Method(("classical", "eol"), join="beside"),
}
PLAIN = "none"
CALIBRATIONS = (
    PLAIN,
    "standardize",
    "center",
    "whiten:0.5",
    "embed_filter:0.5",
    "center+embed_filter:0.5",
    "all-but-the-top:3",
    "all-but-the-top:10",
)


class Kept:
    """What `embed` kept of a pass: vectors of any reading, read from the disk once."""

    def __init__(self, folder: Path, name: str) -> None:
        self.spent = Spent.read(folder / f"{name}.json")
        self._embedder = CountingEmbedder(_absent, store=VectorStore(folder / f"{name}.sqlite"))
        self._seen: dict[tuple[str, str], Vectors] = {}

    def vectors(self, texts: Sequence[str], reading: str, side: str) -> Vectors:
        """Return (N, D)."""
        missing = [text for text in dict.fromkeys(texts) if (side, text) not in self._seen]
        if missing:
            found = self._embedder.embed(missing, "", side)
            self._seen.update(zip(((side, text) for text in missing), found, strict=True))
        width, at = self.spent.width, self.spent.readings.index(reading)
        return np.stack([self._seen[side, text][at * width : (at + 1) * width] for text in texts])


def _absent(texts: Sequence[str], prompt: str, side: str) -> Vectors:
    raise SystemExit(f"{len(texts)} texts were not embedded; run embed to its end first.")


@dataclass(frozen=True)
class Row:
    """A method at a layer, calibrated on some texts or plain."""

    method: str
    layer: str
    """A number, with " raw" behind it for the stream before the final norm."""
    calibration: str
    fitted: str
    """Name of the texts."""

    @property
    def label(self) -> str:
        where = "" if self.calibration == PLAIN else f", {self.calibration} ({self.fitted})"
        return f"{self.method}, layer {self.layer}{where}"

    @property
    def layers(self) -> int:
        return int(self.layer.split()[0])


@dataclass(frozen=True)
class Cost:
    """Of one text, on average over all that were read."""

    tokens: float
    gflop: float
    milliseconds: float
    """Of CPU time of one core."""


class Vectorizer:
    """Turns rows into functions that embed, from what is kept of a model's passes."""

    def __init__(self, folder: Path, model: str, fitting: Mapping[str, Sequence[str]]) -> None:
        self._folder, self._model, self._fitting = folder, model, fitting
        self._kept: dict[str, Kept] = {}
        self._head: np.ndarray | None = None

    def kept(self, name: str) -> Kept:
        if name not in self._kept:
            self._kept[name] = Kept(self._folder, name)
        return self._kept[name]

    def has(self, method: str) -> bool:
        """Whether every pass of a method was begun."""
        return all((self._folder / f"{name}.json").exists() for name in METHODS[method].passes)

    def raw(self, row: Row) -> Callable[[Sequence[str], str], np.ndarray]:
        """Return the function from texts and a side to (N, D) vectors before the map."""
        method = METHODS[row.method]

        def embed(texts: Sequence[str], side: str) -> np.ndarray:
            parts = [
                self.kept(name).vectors(texts, f"{pooling} {row.layer}", side).astype(np.float64)
                for name, pooling in method.poolings()
            ]
            return JOINS[method.join](parts)

        return embed

    def encoder(self, row: Row) -> Encode:
        """Return what embeds texts as a row says."""
        raw, by = self.raw(row), self.map(row)

        def encode(texts: Sequence[str], prompt: str, side: str) -> Vectors:
            return (raw(texts, side) @ by.weight.T + by.bias).astype(np.float32)

        return encode

    def map(self, row: Row) -> AffineMap:
        """Return the map of a row, fitted on its texts."""
        fitted = self.raw(row)(self._fitting[row.fitted], "query")
        if row.calibration == PLAIN:
            return AffineMap(np.eye(fitted.shape[1]), np.zeros(fitted.shape[1]))
        moments = Moments(fitted.shape[1])
        moments.add(fitted)
        return fit(row.calibration, moments, self._head_weight)

    def _head_weight(self) -> np.ndarray:
        if self._head is None:
            self._head = head_of(antiphon.build(self._model, max_tokens=64, dtype="float32", device="cpu"))
        return self._head

    def rows(self, method: str, fitted: Sequence[str], *, whole: bool) -> list[Row]:
        """Return the rows of a method: every calibration at the last layer, plain and standardised ones before it.

        Without `whole`, plain and standardised ones at the last layer alone.
        """
        spent = self.kept(METHODS[method].passes[0]).spent
        pooling = METHODS[method].poolings()[0][1]
        own = [reading.partition(" ")[2] for reading in spent.readings if reading.split()[0] == pooling]
        last, first = str(spent.layers), fitted[0]
        rows = [Row(method, last, one, first) for one in (CALIBRATIONS if whole else CALIBRATIONS[:2])]
        rows += [Row(method, layer, one, first) for layer in own for one in CALIBRATIONS[:2] if whole]
        rows += [Row(method, last, "standardize", other) for other in fitted[1:] if whole]
        return list(dict.fromkeys(rows))

    def cost(self, row: Row) -> Cost:
        """Return what a text costs; of fewer layers their share."""
        share = row.layers / self.kept(METHODS[row.method].passes[0]).spent.layers
        every = [self.kept(name).spent for name in METHODS[row.method].passes]
        return Cost(
            sum(spent.tokens / spent.texts for spent in every),
            sum(spent.flops / spent.texts for spent in every) * share / 1e9,
            sum(spent.cpu_seconds / spent.texts for spent in every) * share * 1e3,
        )
