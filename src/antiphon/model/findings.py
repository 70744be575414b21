"""What an examination of an endpoint found."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.model.remedies import remedy_of


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    topic: str
    sentence: str
    wrong: bool = False
    """Whether it has to be mended; else it is good to know."""
    remedy: str = ""


@dataclass(frozen=True)
class Examination:
    """What came out, what is wrong first."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be mended."""
        return not any(found.wrong for found in self.findings)


def wrong(topic: str, sentence: str, engine: str) -> Finding:
    """Return a finding that has to be mended, in the engine's words."""
    return Finding(topic, sentence, True, remedy_of(topic, engine))
