"""Commands that make and use vectors: embed, search."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from antiphon.cli.application import (
    MODEL_HELP,
    SOURCE_HELP,
    Fields,
    IdField,
    Model,
    SideOption,
    Strict,
    app,
    examples,
)
from antiphon.cli.embed_options import ENGINE_GROUP, PLAN_GROUP
from antiphon.cli.model_options import (
    MODEL_GROUP,
    BatchTokens,
    Compile,
    CompileOption,
    open_named,
    with_model_options,
)
from antiphon.cli.option_groups import with_groups
from antiphon.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.corpus.embedding_plan import Sizing
    from antiphon.corpus.ray_cluster import RaySettings
    from antiphon.model.opening import ModelOptions
    from antiphon.text.template import Side

NOTHING = "none"
Keep = Annotated[
    list[str] | None,
    typer.Option(
        help=f"A field to keep beside the texts; again for more. All of them without it, none with {NOTHING}.",
        show_default=False,
    ),
]
Show = Annotated[
    list[str] | None,
    typer.Option(help="A kept field to print in the place of the text; again for more.", show_default=False),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Search only texts of which this holds: FIELD=VALUE, or != < <= > >=; again for more.", show_default=False
    ),
]


class PrecisionOption(StrEnum):
    """What a number of a vector is stored as."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    binary = "binary"


class ModeOption(StrEnum):
    """What a search compares."""

    vector = "vector"
    text = "text"
    hybrid = "hybrid"


EmbedSource = Annotated[str | None, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
EmbedOut = Annotated[
    Path | None,
    typer.Option(
        help="The folder to write: Parquet shards, or a Lance table where it ends in .lance.", show_default=False
    ),
]
TruncateDim = Annotated[
    int | None,
    typer.Option(help="Keep so many of the first dimensions (Matryoshka); all without it.", show_default=False),
]
ShardSize = Annotated[
    int | None, typer.Option(help="Texts in a shard: 1024, in a Lance table 8192 without it.", show_default=False)
]
VerifyEmbedded = Annotated[
    bool, typer.Option("--verify", help="Write nothing: read every byte of OUT and compare its rows with SOURCE.")
]


@app.command(
    epilog=examples(
        "antiphon embed nano docstrings --out library",
        "antiphon embed Qwen/Qwen3-0.6B pages.jsonl --field title --field body --keep url --out vectors",
        "cat notes.txt | antiphon embed nano - --out notes",
        "antiphon embed nano 'pages/*.parquet' --plan --within 8",
        "antiphon embed nano 'pages/*.parquet' --out vectors.lance --engine ray --workers 8",
    )
)
@with_groups(MODEL_GROUP, PLAN_GROUP, ENGINE_GROUP)
def embed(  # noqa: PLR0913  (the options of the command)
    model: Model,
    source: EmbedSource = None,
    out: EmbedOut = None,
    field: Fields = None,
    id_field: IdField = None,
    keep: Keep = None,
    side: Annotated[SideOption, typer.Option(help="Embed texts as documents or as queries.")] = SideOption.document,
    precision: Annotated[PrecisionOption, typer.Option(help="What vectors are stored as.")] = PrecisionOption.float32,
    truncate_dim: TruncateDim = None,
    shard_size: ShardSize = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.")] = 32,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier embed wrote there.")] = False,
    verify: VerifyEmbedded = False,
    strict: Strict = False,
    batch_tokens: BatchTokens = None,
    compile: Compile = CompileOption.off,
    *,
    options: ModelOptions,
    sizing: Sizing | None,
    engine: Literal["local"] | RaySettings,
) -> None:
    """Embed the texts of a source into a folder; a run that died goes on when it is started again."""
    from antiphon.cli import report

    if sizing is not None:
        reading: dict[str, Any] = {"field": field, "id_field": id_field, "precision": precision.value}
        _plan(model, source, sizing, options, side=side.side, truncate_dim=truncate_dim, **reading)
        return
    if source is None or out is None:
        raise ConfigError("Name a SOURCE and, by --out, the folder to write; only --plan does without.")
    if compile is CompileOption.auto:  # a run that goes on would find other figures and give other bytes
        raise ConfigError("embed does not choose by itself whether to compile; say --compile on or --compile off.")
    opened = open_named(model, options, side=side.side)
    from antiphon.corpus import embed as corpus

    with report.progress("embedding") as tell:
        folder = corpus.embed(
            opened,
            source,
            out,
            field=field,
            id_field=id_field,
            keep=() if keep == [NOTHING] else keep,
            side=side.side,
            precision=precision.value,
            truncate_dim=truncate_dim,
            shard_size=shard_size,
            batch_size=batch_size,
            force=force,
            verify=verify,
            on_progress=tell,
            strict=strict,
            batch_tokens=batch_tokens,
            compile=compile is CompileOption.on,
            engine=engine,
        )
    report.say(str(folder))


def _plan(
    model: str, source: str | None, sizing: Sizing, options: ModelOptions, *, side: Side, **settings: Any
) -> None:
    """Print what it takes; a model is opened only where its tokens or its speed are to be found out."""
    from antiphon.cli import report
    from antiphon.corpus.sizing import plan_embedding

    looked_for = source is not None and None in (sizing.tokens, sizing.tokens_per_second)
    known = open_named(model, options, side=side) if looked_for else model
    report.embedding_plan(plan_embedding(known, source, side=side, sizing=sizing, **settings))


@app.command(
    epilog=examples(
        'antiphon search docstrings "wrap text into lines" --model nano',
        'antiphon search library "open a compressed file" --top 3',
        'antiphon search vectors "refunds" --where "year>=2024" --where lang=en --show title --show url',
    )
)
@with_model_options
def search(  # noqa: PLR0913  (the options of the command)
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder made by embed, or: " + SOURCE_HELP, show_default=False)
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help=MODEL_HELP + " Without it the one that made the folder, or nano.", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many texts to print.")] = 10,
    where: Where = None,
    mode: Annotated[ModeOption, typer.Option(help="Of a Lance table: by vector, words, or both.")] = ModeOption.vector,
    show: Show = None,
    field: Fields = None,
    id_field: IdField = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte of the folder's shards, not their sizes alone.")
    ] = False,
    batch_tokens: BatchTokens = None,
    compile: Compile = CompileOption.auto,
    *,
    options: ModelOptions,
) -> None:
    """Print the texts nearest to a query, best first; in a pipe score, id and text with tabs between them."""
    from antiphon.cli import report
    from antiphon.corpus.conditions import check_known
    from antiphon.corpus.searching import search as run

    named = model or ("nano" if options.given or not Path(source).is_dir() else None)
    opened = None if named is None else open_named(named, options)
    found = run(
        source,
        query,
        model=opened,
        top=top,
        where=where or (),
        mode=mode.value,
        field=field,
        id_field=id_field,
        verify=verify,
        batch_tokens=batch_tokens,
        compile=compile.setting,
    )
    for name in show or ():
        for hit in found:
            check_known(name, hit.fields)
    report.hits(found, show or ["text"])
