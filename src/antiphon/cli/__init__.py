"""The command line: parse, one call to the library, report. Nothing heavy is imported before a command runs.

A file holds the commands of one kind; what they share is in `app`.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.cli.application import app, run_app

# each registers its commands; this is their order in --help
from antiphon.cli import model_commands  # noqa: F401  # isort: skip
from antiphon.cli import embed_commands  # noqa: F401  # isort: skip
from antiphon.cli import index_commands  # noqa: F401  # isort: skip
from antiphon.cli import calibrate_commands  # noqa: F401  # isort: skip
from antiphon.cli import train_commands  # noqa: F401  # isort: skip
from antiphon.cli import mine_commands  # noqa: F401  # isort: skip
from antiphon.cli import evaluate_commands  # noqa: F401  # isort: skip
from antiphon.cli import check_commands  # noqa: F401  # isort: skip
from antiphon.cli import export_commands  # noqa: F401  # isort: skip
from antiphon.cli import serve_commands  # noqa: F401  # isort: skip

__all__ = ["app", "main", "run_app"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    run_app(app, arguments)
