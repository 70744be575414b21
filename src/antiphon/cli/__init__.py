"""The command line: parse, one call to the library, report. Nothing heavy is imported before a command runs.

A file holds the commands of one kind; what they share is in `app`.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.cli.app import app, run_app

# each registers its commands; this is their order in --help
from antiphon.cli import embedding  # noqa: F401  # isort: skip
from antiphon.cli import training  # noqa: F401  # isort: skip
from antiphon.cli import mining  # noqa: F401  # isort: skip
from antiphon.cli import evaluating  # noqa: F401  # isort: skip
from antiphon.cli import checking  # noqa: F401  # isort: skip
from antiphon.cli import exporting  # noqa: F401  # isort: skip
from antiphon.cli import serving  # noqa: F401  # isort: skip

__all__ = ["app", "main", "run_app"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    run_app(app, arguments)
