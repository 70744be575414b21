"""The settings of the sets of a mixture, and the TOML file that holds them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.data.settings import fill
from antiphon.errors import ConfigError

PART = "#"
"""Between the name of a set and the number of a part of it."""


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """One set of a mixture."""

    name: str
    """What the plan and run.json call it."""
    source: str
    """What `antiphon.pairs.load` reads."""
    columns: Mapping[str, str] | None = None
    """The source's names of anchor, positive, negative (or negative_1 ...); found by themselves without it."""
    weight: float | None = None
    """How many steps the set gets relative to the others; by its rows without it. All sets have one or none has."""
    ratio: float = 1.0
    """The share of the rows that is kept, drawn at random (Echo, section 4.4: 0.1, 0.2, 0.5)."""
    sampled: bool = False
    """Whether the source holds no more than this share already, so that `ratio` tells what was done and draws none."""
    cap: int | None = None
    """The most rows that are kept."""
    instruction: str | tuple[str, ...] = ()
    """What the query side is told; several take turns, row by row. Without it the model's own prompt."""
    document_instruction: str | None = None
    """What the document side is told, where the template has a place for it. The model's own prompt without it."""
    symmetric: bool | tuple[bool, ...] = False
    """Whether both sides are queries, as between duplicates; one for each instruction where they differ."""
    symmetric_documents: bool = True
    """Whether the other side of a symmetric set gets the instruction too (LLM2Vec's and Anchor's papers do; their
    code never does)."""
    negatives: int | None = None
    """The most negatives that a row keeps; all without it."""
    required: bool = True
    """Whether a source that is not there is an error; else the set is left out and told in the log."""

    def __post_init__(self) -> None:
        """Raise a ConfigError for a value that cannot be used."""
        where = f"The set {self.name!r}"
        if not self.name or PART in self.name:
            raise ConfigError(f"{where} needs a name without {PART!r}, which marks the parts of a set.")
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise ConfigError(f"{where} has the weight {self.weight}; a number above 0 is wanted.")
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"{where} has the ratio {self.ratio}; a share above 0 and of at most 1 is wanted.")
        for name, value, least in (("cap", self.cap, 1), ("negatives", self.negatives, 0)):
            if value is not None and value < least:
                raise ConfigError(f"{where} has {name} {value}; a whole number of at least {least} is wanted.")
        if isinstance(self.symmetric, tuple) and len(self.symmetric) != len(self.instructions):
            raise ConfigError(
                f"{where} says symmetric {len(self.symmetric)} times and has {len(self.instructions)} instruction(s); "
                "say it once, or once for each."
            )
        if self.document_instruction and any(self.symmetries):
            raise ConfigError(
                f"{where} is symmetric, so its documents are queries and get the instruction; "
                "leave document_instruction out."
            )

    @property
    def instructions(self) -> tuple[str | None, ...]:
        """The query side's instructions, at least one; None is the model's own prompt."""
        given = (self.instruction,) if isinstance(self.instruction, str) else self.instruction
        return given or (None,)

    @property
    def drawn_ratio(self) -> float:
        """The share of the source's rows that is drawn: `ratio`, or all of a source that is sampled already."""
        return 1.0 if self.sampled else self.ratio

    @property
    def symmetries(self) -> tuple[bool, ...]:
        """Whether the set is symmetric, for each instruction."""
        given = self.symmetric
        return given if isinstance(given, tuple) else (given,) * len(self.instructions)


def read_settings(path: str | Path, *, sampled: bool | None = None) -> tuple[PairSettings, ...]:
    r"""Read the [[set]] tables of a mixture's TOML file.

    `sampled` says for all sets whether their sources are sampled already; without it the file's own word counts, for
    each set that has none itself.

    Raises ConfigError for a file that is not there or no TOML, and for a key that is none of a set's.

    Example:
        >>> from pathlib import Path
        >>> from antiphon.mixtures import read_settings
        >>> _ = Path("mixture.toml").write_text('[[set]]\nname = "code"\nsource = "docstrings"\n', encoding="utf-8")
        >>> read_settings("mixture.toml")[0].source
        'docstrings'
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no mixture {path}; name an existing .toml file.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from error
    sets, of_all = table.pop("set", None), table.pop("sampled", False)
    if table or not isinstance(sets, list):
        raise ConfigError(f"{path} is no mixture: it holds `sampled`, [[set]] tables and nothing else.")
    if not isinstance(of_all, bool):
        raise ConfigError(f"{path}: sampled is {of_all!r:.40}; take true or false.")
    return settings_of([{"sampled": of_all, **one} for one in sets], str(path), sampled=sampled)


def settings_of(
    tables: Sequence[Mapping[str, Any]], where: str, *, sampled: bool | None = None
) -> tuple[PairSettings, ...]:
    """Return the settings of [[set]] tables; ConfigError for a key that is none of a set's.

    `sampled` replaces that of every set.

    Example:
        >>> from antiphon.mixtures import settings_of
        >>> settings_of([{"name": "code", "source": "docstrings", "ratio": 0.5}], "a mixture")[0].ratio
        0.5
    """
    given = {} if sampled is None else {"sampled": sampled}
    return tuple(
        fill(PairSettings, {**table, **given}, f"{where}: set[{number}]") for number, table in enumerate(tables)
    )


def check_together(settings: Sequence[PairSettings]) -> None:
    """Raise a ConfigError unless the sets can be mixed: names of their own, and weights for all or for none."""
    names = [one.name for one in settings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"The mixture has more than one set {twice[0]!r}; give each a name of its own.")
    if not settings:
        raise ConfigError("The mixture has no sets; give it at least one.")
    unweighted = [one.name for one in settings if one.weight is None]
    if unweighted and len(unweighted) < len(settings):
        raise ConfigError(
            f"The mixture has weights, but not for {', '.join(unweighted)}; give every set a weight, or none to take "
            "them by their rows (ratio and cap say how many rows)."
        )
