"""Commands on models: show, build, merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import MODEL_HELP, Model, SideOption, app, examples
from antiphon.cli.model_options import open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions


@app.command(
    epilog=examples(
        'antiphon show nano "The cat sat."',
        'antiphon show nano "What do cats eat?" --template echo --prompt "Given a question, find the answer"',
        'antiphon show nano "The cat sat." --template "Summary: {text}" --pooling last --health',
    )
)
@with_model_options
def show(
    model: Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to show.", show_default=False)],
    side: Annotated[SideOption, typer.Option(help="Show it as a query or as a document.")] = SideOption.query,
    health: Annotated[bool, typer.Option("--health", help="Say how alike the vectors of unlike texts are.")] = False,
    *,
    options: ModelOptions,
) -> None:
    """Show how a model reads a text: its tokens, which of them are pooled, lengths and settings."""
    from antiphon.cli import report

    opened = open_named(model, options, side=side.side)
    from antiphon.model import parity
    from antiphon.model.description import describe

    report.description(describe(opened, text, side=side.side))
    if health:
        report.say(f"health     {parity.health(parity.encode(opened, parity.unlike_texts(), side=side.side))}")


@app.command(
    epilog=examples(
        "antiphon build nano --out my-embedder",
        'antiphon build Qwen/Qwen3-0.6B --template echo --prompt "Given a question, find the answer" --out my-embedder',
    )
)
@with_model_options
def build(
    base: Annotated[str, typer.Argument(metavar="BASE", help=MODEL_HELP, show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not be there, or be empty.")],
    *,
    options: ModelOptions,
) -> None:
    """Turn a language model into an embedder with these settings, and save it; print the folder."""
    from antiphon.cli import report

    opened = open_named(base, options)
    from antiphon.model.checkpoint import save

    report.say(str(save(opened, out)))


@app.command(
    epilog=examples(
        "antiphon merge runs/mine --out whole",
        "antiphon merge my-embedder --adapter my-adapter --out whole",
    )
)
@with_model_options
def merge(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder with an adapter, or a model that --adapter goes on.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not be there, or be empty.")],
    *,
    options: ModelOptions,
) -> None:
    """Make a whole model of an adapter and the base that it names, and save it; print the folder."""
    from antiphon.cli import report
    from antiphon.errors import ConfigError
    from antiphon.model.checkpoint import check_target, model_folder, save
    from antiphon.model.weights import adapter_base

    check_target(out)
    if options.adapter is None and adapter_base(str(model_folder(model))) is None:
        raise ConfigError(f"{model} holds no adapter, so there is nothing to merge; name one by --adapter.")
    report.say(str(save(open_named(model, options), out)))
