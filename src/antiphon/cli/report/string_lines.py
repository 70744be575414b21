"""What a dry run prints: each task's strings, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from antiphon.cli.report.terminal import say

if TYPE_CHECKING:
    from antiphon.evaluation.task_strings import TaskStrings


def strings(found: Sequence[TaskStrings]) -> None:
    """Print the query and the passage of each task, in quotes, with {text} for the text."""
    for one in found:
        say(one.task)
        say(f"  query    {one.query!r}")
        say("  passage  every text is a query" if one.passage is None else f"  passage  {one.passage!r}")
