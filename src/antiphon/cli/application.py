"""What every command shares: the app, the arguments that many take, opening a model, and how a run ends.

Data goes to standard output, messages to standard error. Exit codes: 0, 1 where two models are not the same, 2 for
what the user can mend, 130 when interrupted.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon import __version__
from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from antiphon.text.template import Side

app = typer.Typer(
    name="antiphon",
    help="Turn a causal language model into a text embedder.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class SideOption(StrEnum):
    """The side of a search that a text stands on."""

    query = "query"
    document = "document"

    @property
    def side(self) -> Side:
        """The side as the library names it."""
        return "document" if self is SideOption.document else "query"


MODEL_HELP = "A saved embedder or a causal language model: a folder, a hub id, or nano."
SOURCE_HELP = (
    "A .jsonl, .json, .csv, .tsv, .parquet or .txt file, packed or plain, a quoted pattern ('pages/*.parquet') or a "
    "folder of such, a Lance table, a data set of the hub, - for standard input, or docstrings (those of this Python)."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="A field that holds the text; again for more, which are joined by a space. Found by itself without it.",
        show_default=False,
    ),
]
IdField = Annotated[
    str | None, typer.Option("--id", help="The field that names a text; id or _id without it.", show_default=False)
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse data of which anything would be passed over, rather than count it.")
]


def run_app(commands: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    """Run a command line of ours and exit: with 2 and one sentence for what the user can mend, 130 when interrupted."""
    try:
        with _messages():
            commands(args=None if arguments is None else list(arguments))
    except AntiphonError as failure:
        from antiphon.cli import report

        report.error(str(failure))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _messages() -> Iterator[None]:
    """Show our warnings, those of a lasting state once, and none of what libraries tell those who program with them.

    Who asks Python for warnings, by -W or PYTHONWARNINGS, sees all of them.
    """
    handler = _Messages(logging.WARNING)
    ours = logging.getLogger("antiphon")
    ours.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        ours.removeHandler(handler)


class _Messages(logging.Handler):
    """Writes log records to standard error; one that is marked `once` is not written again."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        from antiphon.cli import report

        message = self.format(record)
        if getattr(record, "once", False) and message in self._shown:
            return
        self._shown.add(message)
        report.note(message)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"antiphon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn a causal language model into a text embedder."""


def examples(*lines: str) -> str:
    """Return the epilog of a command."""
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in lines)
