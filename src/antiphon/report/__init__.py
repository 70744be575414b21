"""The only place that prints: tables, tokens and hits to standard output, progress and messages to standard error.

What goes into a pipe is plain: no colour, no boxes cut to a width. NO_COLOR is honoured. It computes nothing.
"""

from __future__ import annotations

from antiphon.report.checking import diagnosis
from antiphon.report.embedding import demo, description, hits
from antiphon.report.evaluation import comparison, evaluating, scores, write_comparison
from antiphon.report.terminal import error, note, progress, say, table
from antiphon.report.training import plan

__all__ = [
    "comparison",
    "demo",
    "description",
    "diagnosis",
    "error",
    "evaluating",
    "hits",
    "note",
    "plan",
    "progress",
    "say",
    "scores",
    "table",
    "write_comparison",
]
