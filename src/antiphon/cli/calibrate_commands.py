"""The command that fits an affine map behind a model's pooling: calibrate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import SOURCE_HELP, Fields, Model, app, examples
from antiphon.cli.model_options import open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions


class ReadAsOption(StrEnum):
    """The side or sides of a search that texts are read on."""

    both = "both"
    query = "query"
    document = "document"


@app.command(
    epilog=examples(
        "antiphon calibrate nano --out calibrated",
        "antiphon calibrate HuggingFaceTB/SmolLM2-135M pages.jsonl --field body --out calibrated",
        "antiphon calibrate nano --method center+embed_filter:0.5 --out calibrated",
    )
)
@with_model_options
def calibrate(
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder for the calibrated model; it must not be there.")],
    texts: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXTS",
            help="Unlabelled texts to fit on; a thousand docstrings of this Python without them. " + SOURCE_HELP,
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="center, standardize, all-but-the-top[:COMPONENTS], whiten[:SHRINKAGE], embed_filter[:SHARE], or "
            "several joined by +."
        ),
    ] = "standardize",
    side: Annotated[ReadAsOption, typer.Option(help="What the texts are read as.")] = ReadAsOption.both,
    field: Fields = None,
    *,
    options: ModelOptions,
) -> None:
    """Fit an affine map on unlabelled texts and put it behind the pooling: better vectors without training."""
    from antiphon.cli import report

    opened = open_named(model, options, calibrated=True)
    from antiphon.encoding.calibrate import calibrate as fitted
    from antiphon.model.calibration import calibration_of
    from antiphon.model.checkpoint import check_target, save

    check_target(out)  # before an hour is spent
    done = fitted(opened, texts, method=method, side=side.value, field=field)
    save(done, out)
    record = calibration_of(done)
    assert record is not None
    report.say(f"{'method':<10} {record.method}")
    report.say(f"{'texts':<10} {record.rows} ({record.texts}), sha256 {record.digest[:16]}")
    report.say(f"{'model':<10} {out}")
