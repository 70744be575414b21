"""What train and embed print before they spend anything: the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.cli.report.terminal import say, table

if TYPE_CHECKING:
    from antiphon.corpus.embedding_plan import EmbeddingPlan
    from antiphon.data.mixtures import SetPlan
    from antiphon.training.plan import Plan


def plan(planned: Plan) -> None:
    """Print what a run costs, stage by stage and set by set."""
    shape = planned.shape
    say(
        f"{planned.name}: {planned.base}, {shape.parameters / 1e6:,.0f}M parameters; hours on {planned.gpus} x "
        f"{planned.gpu} at {planned.utilization:.0%} of its dense bf16 peak (an assumption)\n"
    )
    stages = [stage.cells() for stage in planned.stages]
    table(tuple(stages[0]), [tuple(cells.values()) for cells in stages])
    for stage in planned.stages:
        if stage.sets:
            table(
                (f"sets of {stage.name}", "rows", "of", "ratio", "batches an epoch", "passed over"),
                [
                    (one.name, f"{one.rows:,}", f"{one.source_rows:,}", _ratio(one), f"{one.batches:,}", _skipped(one))
                    for one in stage.sets
                ],
            )
    if any(one.sampled and one.ratio != 1 for stage in planned.stages for one in stage.sets):
        say("'sampled before': the sources hold that share already, so no ratio is applied; data.sampled = false does.")
    if not all(stage.measured for stage in planned.stages):
        say("'at most': the data was not there to be counted, so every text was taken for as long as it may be.")


def embedding_plan(planned: EmbeddingPlan) -> None:
    """Print what embedding a corpus takes: the passages, what is stored, and a row for each worker."""
    say(planned.head)
    say(f"stored: {planned.storage}\n")
    table(planned.columns, [planned.cells(one) for one in planned.workers])
    say("'published': of others, for Qwen3-Embedding-0.6B at 512 tokens, as operations a second; not measured here.")


def _skipped(one: SetPlan) -> str:
    return f"{sum(one.skipped.values()):,}"


def _ratio(one: SetPlan) -> str:
    """Return the share of a set that its settings want, and whether it was drawn here."""
    if one.ratio == 1:
        return ""
    return f"{one.ratio:g} {'sampled before' if one.sampled else 'applied'}"
