"""Commands that train and look at what training taught: train, reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import Model, SideOption, Strict, app, examples
from antiphon.cli.model_options import open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions


@app.command(
    epilog=examples(
        "antiphon train recipes/nano/anchor.toml",
        "antiphon train recipes/anchor/anchor.toml --variant qwen2.5-1.5b --plan",
        "antiphon train recipes/nano/anchor.toml --set steps=20 --set out=runs/short",
        "torchrun --nproc-per-node 8 -m antiphon.cli train recipes/echo/echo.toml --resume",
    )
)
def train(  # noqa: PLR0913  (the options of the command)
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A .toml file; see docs/guides/train.md.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Replace a setting; may be given often.", show_default=False),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="A variant that the recipe names.", show_default=False)] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would cost, and train nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that stands in the folder.")] = False,
    accept_changed_data: Annotated[
        bool, typer.Option("--accept-changed-data", help="Go on although the data have changed since; recorded.")
    ] = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Begin with this stage.", show_default=False)
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="End with this stage.", show_default=False)] = None,
    strict: Strict = False,
) -> None:
    """Train what a recipe says, stage by stage; print the folder of the run."""
    from antiphon.cli import report
    from antiphon.model.library_messages import quiet

    quiet()
    from antiphon import training
    from antiphon.data.processes import processes
    from antiphon.data.settings import assignments
    from antiphon.training.recipe import read

    chosen = read(recipe, overrides=assignments(set_ or []) | ({"strict": True} if strict else {}), variant=variant)
    if plan:
        report.plan(training.plan(chosen))
        return
    folder = training.train(
        chosen,
        resume=resume,
        accept_changed_data=accept_changed_data,
        first=from_,
        until=until,
        on_step=report.note,
    )
    if processes().is_main_process:  # under torchrun every process runs this
        report.say(str(folder))


@app.command(
    epilog=examples(
        'antiphon reconstruct runs/nano-anchor "Return the absolute path of a file."',
        'antiphon reconstruct nano "Wrap text into lines." --temperature 0.7 --seed 3',
    )
)
@with_model_options
def reconstruct(
    model: Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text whose vector is decoded.", show_default=False)],
    side: Annotated[SideOption, typer.Option(help="Embed it as a query or as a document.")] = SideOption.query,
    length: Annotated[int, typer.Option(help="Tokens to decode at most.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest token, above it to draw.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    *,
    options: ModelOptions,
) -> None:
    """Decode from the vector of a text what Stage I taught the model to remember of the other side."""
    from antiphon.cli import report

    opened = open_named(model, options, side=side.side)
    from antiphon.training.reconstruct import reconstruct as decode

    report.say(
        decode(
            opened,
            text,
            side=side.side,
            max_tokens=length,
            temperature=temperature,
            seed=seed,
        )
    )
