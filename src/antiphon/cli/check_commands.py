"""Commands that check and show the whole: parity, demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import MODEL_HELP, ModelOption, SideOption, app, examples
from antiphon.cli.model_options import open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions


@app.command(
    epilog=examples(
        "antiphon parity my-embedder exported",
        "antiphon parity my-embedder http://localhost:8000/v1",
        "antiphon parity served/document https://host/v1 --side document",
    )
)
@with_model_options
def parity(
    a: Annotated[str, typer.Argument(metavar="A", help=MODEL_HELP, show_default=False)],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help=MODEL_HELP + " Or the address of a server with OpenAI's API.", show_default=False
        ),
    ],
    side: Annotated[
        SideOption | None, typer.Option(help="One side only; a server is compared with the query side without it.")
    ] = None,
    *,
    options: ModelOptions,
) -> None:
    """Say whether two models, or a model and a server, give the same vectors, and why not; exit code 1 then.

    The verdict comes first, against A in float32: what A's own rounding in 16 bits makes room for is no difference.
    The options are those of A, and of B where it is a model. A key for the server is read from OPENAI_API_KEY.
    """
    from antiphon.cli import report
    from antiphon.model.server import Server, is_url

    opened = open_named(a, options)
    other = Server(b, os.environ.get("OPENAI_API_KEY")) if is_url(b) else open_named(b, options)
    from antiphon.model.causes import causes_of, judge
    from antiphon.text.template import SIDES, Side

    sides: Sequence[Side] = SIDES
    if side is not None or is_url(b):
        sides = ("query",) if side is None else (side.side,)
    verdicts = [judge(opened, other, side=one) for one in sides]
    worst = max(verdicts, key=lambda one: one.parity.error_against_spread / one.parity.limit)
    report.verdict(worst.parity, worst.notes)
    if not worst.parity.equal:
        with report.progress("looking for the cause") as tell:
            found = causes_of(worst, on_progress=tell)
        report.diagnosis(found)
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "antiphon doctor http://localhost:8000/v1 --model my-embedder",
        "antiphon doctor http://localhost:11434/v1",
        "antiphon doctor my-embedder",
    )
)
@with_model_options
def doctor(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="The address of a server (OpenAI's API, text-embeddings-inference, llama.cpp, Ollama, infinity), or "
            + MODEL_HELP,
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="What it should give: " + MODEL_HELP, show_default=False)
    ] = None,
    side: Annotated[SideOption, typer.Option(help="The side that the model is asked for.")] = SideOption.query,
    *,
    options: ModelOptions,
) -> None:
    """Say what is wrong with an endpoint and what to change there; exit code 1 then.

    Without --model: whether unlike texts are told apart, answers are repeated, companions change a vector, where texts
    are cut. With it: what the endpoint does otherwise than the model, which is opened with the options. A key is read
    from OPENAI_API_KEY.
    """
    from antiphon.cli import report
    from antiphon.model.server import Server, is_url

    server = Server(target, os.environ.get("OPENAI_API_KEY")) if is_url(target) else None
    engine = "" if server is None else server.engine
    opened = None if model is None else open_named(model, options, side=side.side)
    from antiphon.model.doctor import Folder, examine

    endpoint = Folder(open_named(target, options, side=side.side), side.side) if server is None else server
    examination = examine(endpoint, opened, side=side.side, engine=engine)
    report.examination(examination)
    if not examination.healthy:
        raise typer.Exit(1)


@app.command(epilog=examples("antiphon demo", 'antiphon demo --zero-shot --query "open a compressed file"'))
def demo(
    model: ModelOption = "nano",
    pairs: Annotated[int, typer.Option(help="Docstrings to search; minutes for a thousand.")] = 1000,
    query: Annotated[str | None, typer.Option(help="What to search for at the end.", show_default=False)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Train nothing: a minute or two.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Keep the trained models in this folder; resumed if they are there.")
    ] = None,
) -> None:
    """Do the whole job on docstrings: zero-shot, then trained three ways; a table, what is remembered, a search."""
    from antiphon.cli import report
    from antiphon.files import scratch
    from antiphon.model.library_messages import quiet

    quiet()
    from antiphon import demo as job

    with scratch() as temporary:
        runs = None if zero_shot else out or temporary
        asked = job.QUERY if query is None else query
        outcome = job.run(model, limit=pairs, query=asked, runs=runs, on_step=report.note)
    report.demo(outcome, model)
    if out is not None and not zero_shot:
        report.note(f"The trained models are in {out}.")
