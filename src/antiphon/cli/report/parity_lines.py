"""What parity and doctor print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from antiphon.cli.report.terminal import say

if TYPE_CHECKING:
    from antiphon.model.causes import Diagnosis
    from antiphon.model.findings import Examination
    from antiphon.model.parity import Parity

_NEAREST = 3


def verdict(parity: Parity, notes: Sequence[str]) -> None:
    """Print whether two models are the same, at once: what follows may take minutes."""
    say(str(parity))
    for line in notes:
        say(f"note: {line}")
    sys.stdout.flush()


def diagnosis(found: Diagnosis) -> None:
    """Print the cause, or what was tried and came nearest."""
    for cause in found.causes:
        say(f"cause: {cause.topic}: {cause.sentence}")
    if not found.parity.equal and not found.causes:
        say(f"cause: none of the {len(found.tested)} that were tried explains it; the nearest:")
        for cause in sorted(found.tested, key=lambda cause: cause.parity.error_against_spread)[:_NEAREST]:
            say(f"  {cause.topic}: {cause.sentence} (error against spread {cause.parity.error_against_spread:.2e})")


def examination(outcome: Examination) -> None:
    """Print what is wrong first, each with what to change, then what is good to know."""
    if outcome.healthy:
        say("right      nothing has to be changed")
    for found in outcome.findings:
        say(f"{'WRONG' if found.wrong else 'note':<10} {found.topic}: {found.sentence}")
        if found.remedy:
            say(f"{'':<10} {found.remedy}")
