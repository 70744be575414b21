"""The command that makes training data better: mine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import Model, Strict, app, examples
from antiphon.cli.model_options import BatchTokens, Compile, CompileOption, open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions

PAIRS_HELP = (
    "A .jsonl, .csv, .tsv or .parquet file with query and positive, a folder of such .jsonl files or in BEIR layout, "
    "docstrings (those of installed packages), or a data set of the hub."
)


class SamplingOption(StrEnum):
    """Which of the texts that are left become negatives."""

    top = "top"
    random = "random"


ColumnMap = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="PART=NAME,...",
        help="Which field is which part: anchor=q,positive=a,negative=n. Found by their names without it.",
        show_default=False,
    ),
]
Corpus = Annotated[
    str | None,
    typer.Option(
        help="A file of texts, a BEIR folder or a folder made by embed to mine from; the pairs' own documents "
        "without it."
    ),
]
RelativeMargin = Annotated[
    float, typer.Option(help="Stay this share of the positive's cosine below it; 0 to come as near as it.")
]
AbsoluteMargin = Annotated[
    float | None, typer.Option(help="Stay this much below the positive's cosine.", show_default=False)
]
Rescore = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="A cross-encoder whose scores replace cosines in the margins.", show_default=False
    ),
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", help="A Markdown file for counts, scores and examples.", show_default=False)
]
Cache = Annotated[Path | None, typer.Option(help="A folder to keep vectors in, for another run.", show_default=False)]


@app.command(
    epilog=examples(
        "antiphon mine nano docstrings --out mined.jsonl --limit 500",
        "antiphon mine runs/anchor faq.csv --columns anchor=q,positive=a --out mined.jsonl",
        "antiphon mine runs/anchor pairs.jsonl --corpus pages.jsonl --negatives 7 --range-max 200 --out mined.parquet",
        "antiphon mine runs/anchor pairs.jsonl --corpus vectors --report mined.md --out mined.jsonl",
    )
)
@with_model_options
def mine(  # noqa: PLR0913  (the options of the command)
    model: Model,
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help=PAIRS_HELP, show_default=False)],
    out: Annotated[Path, typer.Option(help="The .jsonl or .parquet file to write.")],
    columns: ColumnMap = None,
    corpus: Corpus = None,
    negatives: Annotated[int, typer.Option(help="The most for each pair.")] = 4,
    range_min: Annotated[int, typer.Option(help="Pass over so many of the nearest texts.")] = 0,
    range_max: Annotated[int, typer.Option(help="Look at so many of the nearest texts.")] = 100,
    relative_margin: RelativeMargin = 0.05,
    absolute_margin: AbsoluteMargin = None,
    max_score: Annotated[float | None, typer.Option(help="The highest cosine.", show_default=False)] = None,
    min_score: Annotated[float | None, typer.Option(help="The lowest cosine.", show_default=False)] = None,
    sampling: Annotated[SamplingOption, typer.Option(help="The nearest that are left, or some.")] = SamplingOption.top,
    seed: Annotated[int, typer.Option(help="Of random sampling.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Read only so many pairs.", show_default=False)] = None,
    cache: Cache = None,
    rescore: Rescore = None,
    report_file: ReportFile = None,
    force: Annotated[bool, typer.Option("--force", help="Write over the file.")] = False,
    strict: Strict = False,
    batch_tokens: BatchTokens = None,
    compile: Compile = CompileOption.auto,
    *,
    options: ModelOptions,
) -> None:
    """Give training pairs hard negatives: texts near the query that do not answer it."""
    from antiphon.cli import report
    from antiphon.corpus.mining import mine as run
    from antiphon.corpus.mining_settings import MiningSettings
    from antiphon.corpus.rescoring import open_rescorer
    from antiphon.data.pairs import column_map, held_target, load, write
    from antiphon.data.skipped import Skipped

    settings = MiningSettings(
        negatives=negatives, range_min=range_min, range_max=range_max, relative_margin=relative_margin,
        absolute_margin=absolute_margin, max_score=max_score, min_score=min_score, sampling=sampling.value, seed=seed,
    )  # fmt: skip
    with held_target(out, verb="mine", force=force):  # before anything that takes long
        table = load(pairs, columns=column_map(columns or ""), limit=limit, skipped=Skipped(strict=strict))
        opened = open_named(model, options)
        rescorer = None if rescore is None else open_rescorer(rescore)
        with report.progress("mining") as tell:
            mined = run(
                opened,
                table,
                settings=settings,
                corpus=corpus,
                batch_tokens=batch_tokens,
                compile=compile.setting,
                cache=cache,
                rescore=rescorer,
                report=report_file,
                strict=strict,
                on_progress=tell,
            )
        report.say(str(write(mined, out, force=force)))
