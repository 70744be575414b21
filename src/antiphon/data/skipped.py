"""What a reading passed over: counted and said, or refused where the user wants nothing passed over."""

from __future__ import annotations

import logging

from antiphon.data.byte_streams import refuse

logger = logging.getLogger(__name__)


class Skipped:
    """Counts of what was there and is not used, by what it is; where strict the first such thing is refused."""

    def __init__(self, *, strict: bool = False) -> None:
        """Begin with nothing; `strict` refuses instead of counting."""
        self.strict = strict
        self.counts: dict[str, int] = {}

    def add(self, what: str, where: str, fix: str, *, number: int = 1) -> None:
        """Count `number` of `what`, such as "blank lines"; DataError, with the place and the fix, where strict."""
        if self.strict:
            refuse(f"{where}: {what} would be passed over, and strict reading passes over nothing; {fix}.")
        self.counts[what] = self.counts.get(what, 0) + number

    @property
    def lines(self) -> list[str]:
        """What was passed over, a part of a sentence each."""
        return [f"{what} ({number:,})" for what, number in self.counts.items()]

    def tell(self, name: str) -> None:
        """Say in the log what was passed over in a source, where anything was."""
        if self.counts:
            logger.warning("%s: passed over %s.", name, "; ".join(self.lines))
