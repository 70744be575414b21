"""The command that writes a model in another tool's form: export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.application import MaxTokens, Model, Pooling, Template, app, examples, open_named


class FormOption(StrEnum):
    """The forms that a model can be exported to."""

    portable = "portable"
    hub = "hub"
    onnx = "onnx"
    onnx_int8 = "onnx-int8"


@app.command(
    epilog=examples(
        "antiphon export my-embedder --to portable --out served",
        "antiphon export nano --to onnx --out graph",
        "antiphon export runs/anchor --to hub --out published --dimensions 256 --dimensions 64",
    )
)
def export(  # noqa: PLR0913  (the options of the command)
    model: Model,
    to: Annotated[
        FormOption,
        typer.Option(
            help="portable: stock files for sentence-transformers and servers; hub: with its own code, for "
            "trust_remote_code; onnx, onnx-int8: a graph and tokenizer.json."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not be there.")],
    freeze_prompts: Annotated[
        bool,
        typer.Option(
            "--freeze-prompts", help="Put every prompt into a tokenizer of its own, for servers that drop prompts."
        ),
    ] = False,
    dimensions: Annotated[
        list[int] | None, typer.Option(help="A width that the vectors may be cut to (Matryoshka); may be repeated.")
    ] = None,
    template: Template = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Write a model in another tool's form, and check it there: the same vectors, or nothing is written."""
    from antiphon.cli import report
    from antiphon.model.opening import quiet

    quiet()
    shape = {"template": template, "pooling": pooling, "max_tokens": max_tokens}
    opened = open_named(model, **shape) if any(value is not None for value in shape.values()) else model
    from antiphon import exporting

    done = exporting.export(
        opened, to=to.value, out=out, freeze_prompts=freeze_prompts, dimensions=tuple(dimensions or ())
    )
    for name, folder in done.prompts.items():
        report.say(f"{name:<10} {folder}")
    report.say(f"{'parity':<10} {done.parity}")
    if done.longest is not None:
        report.say(f"{'vllm':<10} --max-model-len {done.longest}")
    if done.cost is not None:
        report.say(f"{'cost':<10} {done.cost}")
