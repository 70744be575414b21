"""Commands that make and use vectors: show, embed, search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.application import (
    SOURCE_HELP,
    Field,
    MaxTokens,
    Model,
    ModelOption,
    Pooling,
    SideOption,
    Strict,
    Template,
    app,
    examples,
    open_named,
)


@app.command(
    epilog=examples(
        'antiphon show nano "The cat sat."',
        'antiphon show nano "What do cats eat?" --template echo --prompt "Given a question, find the answer"',
        'antiphon show nano "The cat sat." --template "Summary: {text}" --pooling last --health',
    )
)
def show(  # noqa: PLR0913  (the options of the command)
    model: Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to show.", show_default=False)],
    template: Template = None,
    pooling: Pooling = None,
    prompt: Annotated[str | None, typer.Option(help="An instruction; the model's own without it.")] = None,
    side: Annotated[SideOption, typer.Option(help="Show it as a query or as a document.")] = SideOption.query,
    max_tokens: MaxTokens = None,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="For a language model: let tokens see later ones.")
    ] = False,
    health: Annotated[bool, typer.Option("--health", help="Say how alike the vectors of unlike texts are.")] = False,
) -> None:
    """Show how a model reads a text: its tokens, which of them are pooled, lengths and settings."""
    from antiphon.cli import report

    opened = open_named(
        model, template=template, pooling=pooling, max_tokens=max_tokens, bidirectional=bidirectional or None
    )
    from antiphon.model import parity
    from antiphon.model.description import describe

    report.description(describe(opened, text, prompt=prompt, side=side.value))
    if health:
        report.say(f"health     {parity.health(parity.encode(opened, parity.unlike_texts(), side=side.value))}")


@app.command(
    epilog=examples(
        "antiphon embed nano docstrings --out library",
        "antiphon embed Qwen/Qwen3-0.6B pages.jsonl --field body --out vectors",
        "cat notes.txt | antiphon embed nano - --out notes",
    )
)
def embed(  # noqa: PLR0913  (the options of the command)
    model: Model,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for the Parquet shards; made if it is not there.")],
    field: Field = None,
    side: Annotated[SideOption, typer.Option(help="Embed texts as documents or as queries.")] = SideOption.document,
    shard_size: Annotated[int, typer.Option(help="Texts in a shard.")] = 1024,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.")] = 32,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier embed wrote there.")] = False,
    template: Template = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
    strict: Strict = False,
) -> None:
    """Embed the texts of a source into a folder; a run that died goes on when it is started again."""
    from antiphon.cli import report

    opened = open_named(model, template=template, pooling=pooling, max_tokens=max_tokens)
    from antiphon.corpus import embed as corpus

    with report.progress("embedding") as tell:
        folder = corpus.embed(
            opened,
            source,
            out,
            field=field,
            side=side.value,
            shard_size=shard_size,
            batch_size=batch_size,
            force=force,
            on_progress=tell,
            strict=strict,
        )
    report.say(str(folder))


@app.command(
    epilog=examples(
        'antiphon search docstrings "wrap text into lines" --model nano',
        'antiphon search library "open a compressed file" --model nano --top 3',
    )
)
def search(  # noqa: PLR0913  (the options of the command)
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder made by embed, or: " + SOURCE_HELP, show_default=False)
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.", show_default=False)],
    model: ModelOption = "nano",
    top: Annotated[int, typer.Option(help="How many texts to print.")] = 10,
    field: Field = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte of the folder's shards, not their sizes alone.")
    ] = False,
    template: Template = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Print the texts nearest to a query, best first; in a pipe score, id and text with tabs between them."""
    from antiphon.cli import report

    opened = open_named(model, template=template, pooling=pooling, max_tokens=max_tokens)
    from antiphon.corpus import embed as corpus

    report.hits(corpus.search(source, query, model=opened, top=top, field=field, verify=verify))
