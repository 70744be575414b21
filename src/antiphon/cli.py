"""The command line: parse, one call to the library, report. Nothing heavy is imported before a command runs.

Data goes to standard output, messages to standard error. Exit codes: 0, 1 where two models are not the same, 2 for
what the user can mend, 130 when interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antiphon import __version__
from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

app = typer.Typer(
    name="antiphon",
    help="Turn a causal language model into a text embedder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class SideOption(StrEnum):
    """The side of a search that a text stands on."""

    query = "query"
    document = "document"


_MODEL = "A saved embedder or a causal language model: a folder, a hub id, or nano."
_SOURCE = "A .jsonl, .csv, .tsv, .parquet or .txt file, - for standard input, or docstrings (those of this Python)."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL, show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", "-m", help=_MODEL)]
Field = Annotated[str | None, typer.Option(help="The field that holds the text; found by itself where it is text.")]
Template = Annotated[
    str | None,
    typer.Option(help="For a language model: a template's name, or a text with a {text} slot.", show_default=False),
]
Pooling = Annotated[
    str | None, typer.Option(help="For a language model: last, mean or weighted_mean.", show_default=False)
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="For a language model: tokens of a sequence with one copy of the text.", show_default=False),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    run_app(app, arguments)


def run_app(commands: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    """Run a command line of ours and exit: with 2 and one sentence for what the user can mend, 130 when interrupted."""
    try:
        commands(args=None if arguments is None else list(arguments))
    except AntiphonError as failure:
        from antiphon import report

        report.error(str(failure))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


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


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in lines)


def _open(name: str, **shape: Any) -> SentenceTransformer:
    from antiphon.opening import Shape, open_model, quiet

    quiet()
    return open_model(name, Shape(**shape))


@app.command(
    epilog=_examples(
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
    from antiphon import report

    opened = _open(
        model, template=template, pooling=pooling, max_tokens=max_tokens, bidirectional=bidirectional or None
    )
    from antiphon import parity
    from antiphon.showing import describe

    report.description(describe(opened, text, prompt=prompt, side=side.value))
    if health:
        report.say(f"health     {parity.health(parity.encode(opened, parity.unlike_texts(), side=side.value))}")


@app.command(
    epilog=_examples(
        "antiphon embed nano docstrings --out library",
        "antiphon embed Qwen/Qwen3-0.6B pages.jsonl --field body --out vectors",
        "cat notes.txt | antiphon embed nano - --out notes",
    )
)
def embed(  # noqa: PLR0913  (the options of the command)
    model: Model,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE, show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for the Parquet shards; made if it is not there.")],
    field: Field = None,
    side: Annotated[SideOption, typer.Option(help="Embed texts as documents or as queries.")] = SideOption.document,
    shard_size: Annotated[int, typer.Option(help="Texts in a shard.")] = 1024,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.")] = 32,
    force: Annotated[bool, typer.Option("--force", help="Throw away what an earlier run left in the folder.")] = False,
    template: Template = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Embed the texts of a source into a folder; a run that died goes on when it is started again."""
    from antiphon import report

    opened = _open(model, template=template, pooling=pooling, max_tokens=max_tokens)
    from antiphon import corpus

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
        )
    report.say(str(folder))


@app.command(
    epilog=_examples(
        'antiphon search docstrings "wrap text into lines" --model nano',
        'antiphon search library "open a compressed file" --model nano --top 3',
    )
)
def search(  # noqa: PLR0913  (the options of the command)
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder made by embed, or: " + _SOURCE, show_default=False)
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.", show_default=False)],
    model: ModelOption = "nano",
    top: Annotated[int, typer.Option(help="How many texts to print.")] = 10,
    field: Field = None,
    template: Template = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Print the texts nearest to a query, best first; in a pipe score, id and text with tabs between them."""
    from antiphon import report

    opened = _open(model, template=template, pooling=pooling, max_tokens=max_tokens)
    from antiphon import corpus

    report.hits(corpus.search(source, query, model=opened, top=top, field=field))


@app.command(epilog=_examples("antiphon parity my-embedder exported", "antiphon parity nano my-embedder"))
def parity(
    a: Annotated[str, typer.Argument(metavar="A", help=_MODEL, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help=_MODEL, show_default=False)],
) -> None:
    """Say whether two models give the same vectors; exit code 1 where they do not."""
    from antiphon import report

    models = [_open(name) for name in (a, b)]
    from antiphon.parity import between

    outcome = between(*models)
    report.say(str(outcome))
    if not outcome.equal:
        raise typer.Exit(1)


@app.command(epilog=_examples("antiphon demo", 'antiphon demo --pairs 200 --query "open a compressed file"'))
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


if __name__ == "__main__":
    main()
