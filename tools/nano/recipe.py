"""The settings from which the embedded model is rebuilt."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from antiphon.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the model reads."""

    vocabulary: int
    """Tokens of the byte-level BPE, special tokens included."""
    heldout_one_in: int
    """One docstring in so many is kept for the perplexity of the model card."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of the Llama-shaped model, its head tied to its embeddings."""

    width: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast it learns."""

    tokens: int
    batch_tokens: int
    row: int
    """Tokens in a row for most of the run."""
    long_row: int
    """Tokens in a row for the last `long_share` of the run."""
    long_share: float
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    decay_share: float
    """The share of the run, at its end, over which the learning rate falls linearly to zero."""
    seed: int

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.tokens // self.batch_tokens

    def row_at(self, step: int) -> int:
        """Return the row length of a step."""
        return self.long_row if step >= self.steps * (1 - self.long_share) else self.row

    def rate_at(self, step: int) -> float:
        """Return the factor on the learning rate: warm-up, constant, linear decay to zero."""
        left = (self.steps - step) / max(1.0, self.steps * self.decay_share)
        return min(1.0, (step + 1) / max(1, self.warmup_steps), left)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """The whole recipe, as it stands in `recipes/nano/pretrain.toml`."""

    data: Data
    model: Shape
    training: Schedule


def read(path: Path) -> PretrainRecipe:
    """Read a pre-training recipe; a missing, unknown or mistyped key is a `ConfigError` that names it."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no recipe at {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    sections = {"data": Data, "model": Shape, "training": Schedule}
    _same_keys(raw, set(sections), str(path))
    return PretrainRecipe(**{name: _section(kind, raw[name], f"[{name}] in {path}") for name, kind in sections.items()})


def _section(kind: type[Any], raw: dict[str, Any], where: str) -> Any:
    _same_keys(raw, {field.name for field in fields(kind)}, where)
    for field in fields(kind):
        wanted = (int, float) if field.type == "float" else int
        if not isinstance(raw[field.name], wanted) or isinstance(raw[field.name], bool):
            raise ConfigError(f"{field.name} of {where} is {raw[field.name]!r}; a {field.type} is wanted.")
    return kind(**raw)


def _same_keys(raw: dict[str, Any], wanted: set[str], where: str) -> None:
    for key in sorted(set(raw) ^ wanted):
        what = "is missing from" if key in wanted else "is unknown in"
        raise ConfigError(f"{key} {what} {where}; it takes {', '.join(sorted(wanted))}.")
