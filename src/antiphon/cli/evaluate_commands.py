"""Commands that score models: evaluate, compare."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from antiphon.cli.application import Model, Strict, app, examples
from antiphon.cli.embed_options import ENGINE_GROUP
from antiphon.cli.model_options import MODEL_GROUP, BatchTokens, Compile, CompileOption, open_named
from antiphon.cli.option_groups import with_groups

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from antiphon.corpus.ray_cluster import RaySettings
    from antiphon.evaluation import Scores
    from antiphon.model.opening import ModelOptions


class OwnDocumentOption(StrEnum):
    """Whether a query's own document is ranked: where ids are one space it is left out by itself."""

    auto = "auto"
    keep = "keep"
    leave_out = "leave-out"


TASKS_HELP = (
    "Tasks with commas between: mteb's names, sets (mteb-eng-v1, mteb-eng-v2, mteb-mini, llm2vec-15, nano-beir, "
    "mteb-multilingual-v2, rteb, bright, longembed, nano-beir-multilingual), probes (probe:geometry), local files and "
    "folders. May be given more than once."
)

OwnDocument = Annotated[
    OwnDocumentOption, typer.Option(help="What becomes of the document with a query's own id in its ranking.")
]
Instructions = Annotated[
    str | None,
    typer.Option(
        help="A JSON file, task to instruction, over the shipped ones; or own: the model's own prompts.",
        show_default=False,
    ),
]

Limit = Annotated[
    int | None, typer.Option(help="Examples of a local task at most, drawn with the seed.", show_default=False)
]
Cut = Annotated[
    int | None,
    typer.Option(
        help="Cut texts to whole words of at most so many tokens; LLM2Vec and Anchor: 400.", show_default=False
    ),
]
Label = Annotated[
    str | None, typer.Option(help="What tables call the run; equal labels are seeds.", show_default=False)
]
Cache = Annotated[
    Path | None, typer.Option(help="Where scores and vectors are kept for the next run.", show_default=False)
]
TrainedOn = Annotated[
    list[str] | None,
    typer.Option(
        help="Training pairs, as recipes name them: how many rows hold a text of a task is told. May be given more "
        "than once.",
        show_default=False,
    ),
]
Submit = Annotated[
    Path | None,
    typer.Option(
        help="A new folder for mteb's leaderboard: results in its layout, metadata, mock_run passed.",
        show_default=False,
    ),
]
HubName = Annotated[
    str | None,
    typer.Option(help="What --submit calls the model: OWNER/NAME, or OWNER/NAME@COMMIT.", show_default=False),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what the model would get on each task, and score nothing.")
]


@app.command(
    epilog=examples(
        "antiphon evaluate nano --tasks pairs.tsv,search-data --out runs/nano",
        "antiphon evaluate my-embedder --tasks mteb-eng-v2 --out runs/mine",
        "antiphon evaluate my-embedder --tasks mteb-eng-v2 --submit submission --hub-name me/my-embedder",
        "antiphon evaluate my-embedder --tasks mteb-eng-v2 --engine ray --workers 8 --out runs/mine",
        "antiphon evaluate Qwen/Qwen3-0.6B --template echo --tasks STSBenchmark,SciFact --instructions words.json",
    )
)
@with_groups(MODEL_GROUP, ENGINE_GROUP)
def evaluate(  # noqa: PLR0913  (the options of the command)
    model: Model,
    tasks: Annotated[list[str], typer.Option("--tasks", "-t", help=TASKS_HELP, show_default=False)],
    out: Annotated[Path | None, typer.Option(help="A folder for scores and examples.", show_default=False)] = None,
    instructions: Instructions = None,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(help="Of draws and classifiers; mteb's is 42.")] = 42,
    label: Label = None,
    cache: Cache = None,
    own_document: OwnDocument = OwnDocumentOption.auto,
    strict: Strict = False,
    cut: Cut = None,
    dry_run: DryRun = False,
    trained_on: TrainedOn = None,
    submit: Submit = None,
    hub_name: HubName = None,
    batch_tokens: BatchTokens = None,
    compile: Compile = CompileOption.auto,
    *,
    options: ModelOptions,
    engine: Literal["local"] | RaySettings,
) -> None:
    """Score a model by mteb's metrics; a run that died goes on, and a run that was done takes seconds."""
    from antiphon.cli import report
    from antiphon.data.processes import rank
    from antiphon.evaluation import evaluate as job
    from antiphon.evaluation.instructions import OWN
    from antiphon.evaluation.ranks import take_device

    take_device()
    opened = open_named(model, options)
    prompted = options.prompt is not None or options.prompt_name is not None
    instructions = OWN if instructions is None and prompted else instructions
    names = [name for given in tasks for name in given.split(",") if name]
    _check_submission(submit, hub_name or model)
    if dry_run:
        _say_strings(opened, names, instructions)
        return
    with report.evaluating() as listener:
        found = job(
            opened,
            names,
            out=out,
            instructions=instructions,
            limit=limit,
            seed=seed,
            budget=batch_tokens,
            compile=compile.setting,
            cut=cut,
            label=label or f"{model} {options.template or ''}".strip(),
            cache=True if cache is None else cache,
            listener=listener,
            own_document=own_document.value,
            strict=strict,
            trained_on=trained_on or (),
            engine=engine,
        )
    if rank() == 0:
        report.scores(found, out)
        _submit(opened, found, submit, name=hub_name or model, source=model)


def _check_submission(submit: Path | None, name: str) -> None:
    """Raise a ConfigError before an hour is spent where a submission is wanted and the model's name is no hub id."""
    if submit is not None:
        from antiphon.exporting.leaderboard import check_name

        check_name(name)


def _submit(model: SentenceTransformer, scores: Scores, submit: Path | None, *, name: str, source: str) -> None:
    if submit is not None:
        from antiphon.cli import report
        from antiphon.exporting import leaderboard

        report.submission(leaderboard.submit(model, scores, submit, name=name, source=source))


def _say_strings(model: SentenceTransformer, names: list[str], instructions: str | None) -> None:
    from antiphon.cli import report
    from antiphon.evaluation.task_strings import task_strings

    report.strings(task_strings(model, names, instructions=instructions))


@app.command(
    epilog=examples(
        "antiphon compare runs/classical runs/echo --out comparison",
        "antiphon compare runs/baseline-seed1 runs/baseline-seed2 runs/anchor-seed1 runs/anchor-seed2",
    )
)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Folders that evaluate or train wrote; the first is what the others are measured against.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.html, the tables and the plots.", show_default=False)
    ] = None,
    published: Annotated[
        str, typer.Option(help="Papers' rows to stand beside: anchor, echo-zero-shot, echo, llm2vec, commas between.")
    ] = "",
) -> None:
    """Set runs side by side: paired intervals by task and overall, cost, and a report that needs no network."""
    from antiphon.cli import report
    from antiphon.evaluation import compare as job

    outcome = job(runs, published=[name for name in published.split(",") if name])
    report.comparison(outcome)
    if out is not None:
        report.note(f"written to {report.write_comparison(outcome, out)}")
