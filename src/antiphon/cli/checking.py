"""Commands that check and show the whole: parity, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.app import MODEL_HELP, ModelOption, app, examples, open_named


@app.command(epilog=examples("antiphon parity my-embedder exported", "antiphon parity nano my-embedder"))
def parity(
    a: Annotated[str, typer.Argument(metavar="A", help=MODEL_HELP, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help=MODEL_HELP, show_default=False)],
) -> None:
    """Say whether two models give the same vectors; exit code 1 where they do not."""
    from antiphon import report

    models = [open_named(name) for name in (a, b)]
    from antiphon.parity import between

    outcome = between(*models)
    report.say(str(outcome))
    if not outcome.equal:
        raise typer.Exit(1)


@app.command(epilog=examples("antiphon demo", 'antiphon demo --pairs 200 --query "open a compressed file"'))
def demo(
    model: ModelOption = "nano",
    pairs: Annotated[int, typer.Option(help="Docstrings to search; minutes for a thousand.")] = 1000,
    query: Annotated[str | None, typer.Option(help="What to search for at the end.", show_default=False)] = None,
) -> None:
    """Embed zero-shot, classical and echo, over the standard library's docstrings; a table, then a search."""
    from antiphon import report
    from antiphon.opening import quiet

    quiet()
    from antiphon import demo as job

    outcome = job.run(model, limit=pairs, query=job.QUERY if query is None else query, on_step=report.note)
    report.demo(outcome, model)
