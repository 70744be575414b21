"""The only place that prints: tables, tokens and hits to standard output, progress and messages to standard error.

What goes into a pipe is plain: no colour, no boxes cut to a width. NO_COLOR is honoured. It computes nothing.
"""

from __future__ import annotations

from antiphon.cli.report.embedding_lines import demo, description, hits, vector_index
from antiphon.cli.report.parity_lines import diagnosis, examination, verdict
from antiphon.cli.report.plan_lines import embedding_plan, plan
from antiphon.cli.report.score_report import comparison, evaluating, scores, submission, write_comparison
from antiphon.cli.report.string_lines import strings
from antiphon.cli.report.terminal import error, note, progress, say, table, waiting

__all__ = [
    "comparison",
    "demo",
    "description",
    "diagnosis",
    "embedding_plan",
    "error",
    "evaluating",
    "examination",
    "hits",
    "note",
    "plan",
    "progress",
    "say",
    "scores",
    "strings",
    "submission",
    "table",
    "vector_index",
    "verdict",
    "waiting",
    "write_comparison",
]
