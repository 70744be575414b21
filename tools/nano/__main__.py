"""`python -m tools.nano RECIPE --out DIR`: rebuild the embedded model from installed packages, one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli import report, run_app


def rebuild(
    recipe: Annotated[Path, typer.Argument(help="The pre-training recipe, such as recipes/nano/pretrain.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; it must not exist.")],
    root: Annotated[
        list[Path] | None, typer.Option(help="Folders with packages; site-packages is always read.")
    ] = None,
    work: Annotated[Path, typer.Option(help="State of a run; an interrupted one goes on from it.")] = Path(
        ".cache/nano"
    ),
    tokens: Annotated[int | None, typer.Option(help="Train on so many tokens instead of the recipe's.")] = None,
) -> None:
    """Build the corpus, train tokenizer and model, and write them with a model card."""
    from antiphon.data.docstrings import site_packages
    from antiphon.errors import CheckpointError
    from tools.nano import card, corpus, pretrain
    from tools.nano.recipe import read

    settings = read(recipe)
    if tokens is not None:
        settings = replace(settings, training=replace(settings.training, tokens=tokens))
    if out.exists():
        raise CheckpointError(f"{out} exists; nothing was done. Name another folder or remove it.")
    roots = [*(root or []), site_packages()]
    report.note(f"reading the docstrings below {', '.join(map(str, roots))}")
    built = corpus.build(roots, settings.data, seed=settings.training.seed)
    report.note(f"{built.documents:,} docstrings, {len(built.train):,} tokens")
    work.mkdir(parents=True, exist_ok=True)
    steps = settings.training.steps
    with report.progress(f"pre-training, steps of {settings.training.batch_tokens:,} tokens") as tell:
        model, seconds = pretrain.pretrain(built, settings, work, on_step=lambda step, loss: tell(step, steps))
    run = card.Run(seconds=seconds, device=pretrain.device_name())
    report.note(f"wrote {card.write(model, built, settings, run, out)}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(rebuild)
    run_app(app)
