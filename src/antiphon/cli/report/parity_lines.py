"""What parity and doctor print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.cli.report.terminal import say

if TYPE_CHECKING:
    from antiphon.model.causes import Diagnosis
    from antiphon.model.findings import Examination

_NEAREST = 3


def diagnosis(found: Diagnosis) -> None:
    """Print the verdict, then the cause, or what was tried and came nearest, then the notes."""
    say(str(found.parity))
    for cause in found.causes:
        say(f"cause: {cause.topic}: {cause.sentence}")
    if not found.parity.equal and not found.causes:
        say(f"cause: none of the {len(found.tested)} that were tried explains it; the nearest:")
        for cause in sorted(found.tested, key=lambda cause: cause.parity.error_against_spread)[:_NEAREST]:
            say(f"  {cause.topic}: {cause.sentence} (error against spread {cause.parity.error_against_spread:.2e})")
    for note in found.notes:
        say(f"note: {note}")


def examination(outcome: Examination) -> None:
    """Print what is wrong first, each with what to change, then what is good to know."""
    if outcome.healthy:
        say("right      nothing has to be changed")
    for found in outcome.findings:
        say(f"{'WRONG' if found.wrong else 'note':<10} {found.topic}: {found.sentence}")
        if found.remedy:
            say(f"{'':<10} {found.remedy}")
