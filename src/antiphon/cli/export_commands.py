"""The command that writes a model in another tool's form: export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import Model, app, examples
from antiphon.cli.model_options import open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions


class FormOption(StrEnum):
    """The forms that a model can be exported to."""

    portable = "portable"
    hub = "hub"
    onnx = "onnx"
    onnx_int8 = "onnx-int8"
    gguf = "gguf"
    gguf_bf16 = "gguf-bf16"
    gguf_q8_0 = "gguf-q8_0"


LENGTH_FLAGS = {"portable": "vllm serve --max-model-len", "gguf": "llama-server --ctx-size"}
"""How an engine is told the length of a sequence, by the form."""


@app.command(
    epilog=examples(
        "antiphon export my-embedder --to portable --out served",
        "antiphon export nano --to onnx --out graph",
        "antiphon export runs/anchor --to hub --out published --dimensions 256 --dimensions 64",
    )
)
@with_model_options
def export(
    model: Model,
    to: Annotated[
        FormOption,
        typer.Option(
            help="portable: stock files for sentence-transformers and servers; hub: with its own code, for "
            "trust_remote_code; onnx, onnx-int8: a graph and tokenizer.json; gguf (float16), gguf-bf16, gguf-q8_0: "
            "a file for llama.cpp and tokenizer.json."
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
    *,
    options: ModelOptions,
) -> None:
    """Write a model in another tool's form, and check it there: the same vectors, or nothing is written."""
    from antiphon.cli import report
    from antiphon.model.library_messages import quiet

    quiet()
    opened = open_named(model, options) if options.given else model
    from antiphon import exporting

    done = exporting.export(
        opened, to=to.value, out=out, freeze_prompts=freeze_prompts, dimensions=tuple(dimensions or ())
    )
    for name, folder in done.prompts.items():
        report.say(f"{name:<10} {folder}")
    report.say(f"{'parity':<10} {done.parity}")
    if done.longest is not None:
        report.say(f"{'engine':<10} {LENGTH_FLAGS[to.value.partition('-')[0]]} {done.longest}")
    if done.cost is not None:
        report.say(f"{'cost':<10} {done.cost}")
