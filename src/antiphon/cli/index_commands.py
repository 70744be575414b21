"""The command that makes a large Lance table faster to search: index."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.application import app, examples


class KindOption(StrEnum):
    """What an index keeps of a vector: a bit a dimension (RaBitQ), codes of product quantisation, or all of it."""

    ivf_rq = "ivf_rq"
    ivf_pq = "ivf_pq"
    ivf_flat = "ivf_flat"


@app.command(
    epilog=examples("antiphon index library.lance", "antiphon index library.lance --kind ivf_pq --recall 0.95")
)
def index(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A Lance table that embed wrote.", show_default=False)],
    kind: Annotated[KindOption, typer.Option(help="What the index keeps of a vector.")] = KindOption.ivf_rq,
    recall: Annotated[float, typer.Option(help="The share of the ten nearest that searches are to find.")] = 0.99,
) -> None:
    """Index the vectors and the words of a Lance table, and print the recall against exact search."""
    from antiphon.cli import report
    from antiphon.corpus.lance_indexing import build_index

    report.vector_index(build_index(table, kind=kind.value, recall=recall), wanted=recall)
