"""A page about what was mined: how much, how near, and pairs to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from antiphon.corpus.mining_settings import MiningSettings
from antiphon.data.pairs import Pair
from antiphon.errors import ConfigError, DataError
from antiphon.files import reason, write_whole

EXAMPLES = 10
TITLE = "# Mined negatives"
_LONGEST = 300
"""Characters of a text that the page shows."""
_SHARES = (0.0, 5.0, 25.0, 50.0, 75.0, 95.0, 100.0)


@dataclass(frozen=True)
class Negative:
    """A text that was taken: its place in the corpus, its score, and how many texts of the window are nearer."""

    row: int
    score: float
    rank: int


@dataclass(frozen=True)
class MiningReport:
    """What was mined for the queries of some pairs."""

    settings: MiningSettings
    rows: Sequence[Pair]
    row_queries: Sequence[int]
    """The query of each pair."""
    taken: Sequence[Sequence[Negative]]
    """The negatives of each query."""
    positives: Sequence[float]
    """The score of each query's least similar positive."""

    def write(self, path: Path) -> None:
        """Write the page; DataError where that fails."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, self.page().encode())
        except OSError as error:
            raise DataError(f"{path} could not be written ({reason(error)}); name another file.") from error

    def page(self) -> str:
        """Return the page, as Markdown."""
        parts = [TITLE, self._counts(), self._scores(), "## Examples", *self._examples()]
        return "\n\n".join(parts) + "\n"

    def _counts(self) -> str:
        wanted = self.settings.negatives
        full = sum(len(pair.negatives) == wanted for pair in self.rows)
        none = sum(not pair.negatives for pair in self.rows)
        settings = ", ".join(f"{name} {value}" for name, value in asdict(self.settings).items() if value is not None)
        return (
            f"{len(self.rows):,} pairs of {len(self.taken):,} queries: {full:,} have {wanted} negatives, "
            f"{none:,} have none.\n\nSettings: {settings}."
        )

    def _scores(self) -> str:
        found = [one for negatives in self.taken for one in negatives]
        columns: dict[str, list[float]] = {
            "positive": [score for score in self.positives if np.isfinite(score)],
            "negative": [one.score for one in found],
            "negative / positive": [
                one.score / positive
                for negatives, positive in zip(self.taken, self.positives, strict=True)
                for one in negatives
                if positive > 0
            ],
            "rank": [float(one.rank + 1) for one in found],
        }
        head = "| | " + " | ".join(f"{share:.0f} %" for share in _SHARES) + " |\n|---|" + "---|" * len(_SHARES)
        lines = [
            f"| {name} | " + " | ".join(f"{value:.4g}" for value in np.percentile(np.asarray(values), _SHARES)) + " |"
            for name, values in columns.items()
            if values
        ]
        return "## Scores\n\n" + "\n".join([head, *lines])

    def _examples(self) -> list[str]:
        """Return pairs evenly spread over those that have a negative."""
        numbers = [n for n, pair in enumerate(self.rows) if pair.negatives]
        chosen = numbers[:: max(1, len(numbers) // EXAMPLES)][:EXAMPLES]
        return [self._example(number) for number in chosen] or ["No pair has a negative."]

    def _example(self, number: int) -> str:
        pair, query = self.rows[number], self.row_queries[number]
        lines = [
            f"**{_short(pair.anchor)}**\n",
            f"- positive ({self.positives[query]:.3f}): {_short(pair.positive)}",
            *(
                f"- {one.score:.3f}, rank {one.rank + 1}: {_short(text)}"
                for one, text in zip(self.taken[query], pair.negatives, strict=True)
            ),
        ]
        return "\n".join(lines)


def check_report(report: str | Path | None) -> None:
    """Raise a ConfigError where something stands that is no such page, before a mining that takes long."""
    if report is None:
        return
    path = Path(report)
    if path.exists() and (not path.is_file() or not path.read_bytes().startswith(TITLE.encode())):
        raise ConfigError(f"{path} exists and is no report of a mining; name another file by --report.")


def _short(text: str) -> str:
    """Return the beginning of a text in one line, such that Markdown shows it as it is."""
    line = " ".join(text.split())
    cut = line if len(line) <= _LONGEST else line[:_LONGEST] + "..."
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in cut)
