"""A stage's settings in the words of sentence-transformers' trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from torch import nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from antiphon import compat
from antiphon.data.processes import processes
from antiphon.data.progress_bar import Progress
from antiphon.data.sampling import KeepEpoch
from antiphon.errors import ConfigError, first_line
from antiphon.training.callbacks import Calls, CheckpointMarker, Steps, Tell, Watch
from antiphon.training.dataset import Rows
from antiphon.training.losses.kinds import Collate
from antiphon.training.nothing_learned import NothingLearned, warn_of_data
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Stage

SAVES = 10
"""Checkpoints of a stage that does not say how often."""
_PRECISIONS: Mapping[str, dict[str, bool]] = {
    "float32": {},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
    "bf16-pure": {},
}


class StageTrainer(SentenceTransformerTrainer):
    """The trainer with a schedule that may end later than the stage does, and checkpoints without a card."""

    schedule_horizon: int | None = None
    """Steps after which the schedule ends; the stage's own without it."""

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule over its horizon."""
        scheduler: torch.optim.lr_scheduler.LRScheduler = super().create_scheduler(
            self.schedule_horizon or num_training_steps, optimizer
        )
        return scheduler

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[None]:
        """Return what has all of a loss computed in the stage's precision: by itself only the model's forward is."""
        autocast: AbstractContextManager[None] = self.accelerator.autocast()
        return autocast

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add nothing: a run's card is made where it is exported, and statistics of the data are for another one."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint, without a card: to compile its template takes longer than to write a small model."""
        self.model.save_pretrained = partial(self.model.save_pretrained, create_model_card=False)
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            del self.model.save_pretrained


@dataclass(frozen=True)
class StageJob:
    """What a trainer is made of."""

    recipe: Recipe
    stage: Stage
    checkpoints: Path
    model: SentenceTransformer
    loss: nn.Module
    rows: Rows


def batching(stage: Stage, processes: int) -> tuple[int, int]:
    """Return the rows on a device and the steps of accumulation that make up the batch.

    Raises ConfigError where the batch cannot be shared out evenly.
    """
    device = stage.device_batch_size or stage.batch_size // processes
    if not device or stage.batch_size % (device * processes):
        raise ConfigError(
            f"stage.{stage.name}: a batch of {stage.batch_size} cannot be shared out over {processes} processes with "
            f"{device} rows each; choose a multiple of {max(1, device) * processes}."
        )
    return device, stage.batch_size // (device * processes)


def make_trainer(
    job: StageJob, collate: Collate, settings: Any, tell: Callable[[str], None], step: Progress
) -> SentenceTransformerTrainer:
    """Return the trainer of a stage; `tell` is given a line for each entry of its log, `step` the number of each step.

    Raises ConfigError for a schedule, optimizer, precision or tracker that the trainer does not know or have.
    """
    stage = job.stage
    callbacks: list[TrainerCallback] = [
        Watch(stage.name),
        CheckpointMarker(job.model),
        Calls(job.loss),
        Tell(tell),
        KeepEpoch(),
    ]
    callbacks += [Steps(step), NothingLearned(stage.name, job.loss)]
    if processes().is_main_process:
        warn_of_data(stage.name, job.loss, job.rows.datasets, batching(stage, processes().num_processes)[0])
    if stage.evaluation is not None and stage.evaluation.patience is not None:
        callbacks.append(EarlyStoppingCallback(stage.evaluation.patience))
    evaluator = _evaluator(job)
    try:
        arguments = SentenceTransformerTrainingArguments(**_optimization(job), **_bookkeeping(job, evaluator))
        trainer = StageTrainer(
            model=job.model,
            args=arguments,
            train_dataset=job.rows.datasets,
            loss=job.loss,
            evaluator=evaluator,
            data_collator=collate(job.model, arguments, settings),
            callbacks=callbacks,
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"Stage {stage.name!r} cannot be set up: {first_line(error)}") from error
    trainer.schedule_horizon = job.rows.horizon(stage)
    trainer.remove_callback(PrinterCallback)  # a library prints nothing; Tell hands the lines on
    return trainer


def _evaluator(job: StageJob) -> SentenceEvaluator | None:
    evaluation = job.stage.evaluation
    if evaluation is None:
        return None
    from antiphon.evaluation import evaluator  # the one edge between verbs; mteb takes seconds to import

    return evaluator(
        evaluation.tasks, instructions=evaluation.instructions, limit=evaluation.limit, seed=job.recipe.seed
    )


def _optimization(job: StageJob) -> dict[str, Any]:
    """Return the arguments that decide what is learned."""
    stage = job.stage
    device, accumulation = batching(stage, processes().num_processes)
    return {
        "per_device_train_batch_size": device,
        "gradient_accumulation_steps": accumulation,
        "max_steps": job.rows.steps(stage),
        "learning_rate": stage.learning_rate,
        "warmup_steps": stage.warmup_steps,
        "lr_scheduler_type": stage.schedule,
        "weight_decay": stage.weight_decay,
        "optim": stage.optimizer,
        "max_grad_norm": stage.gradient_clip,
        "seed": job.recipe.seed,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_drop_last": True,
        "ddp_find_unused_parameters": False,
        "prompts": job.rows.prompts,
        "router_mapping": job.rows.router_mapping,
        "multi_dataset_batch_sampler": job.rows.sampler,
        **_PRECISIONS[stage.precision],
        **(compat.checkpointing_arguments() if stage.gradient_checkpointing else {}),
    }


def _bookkeeping(job: StageJob, evaluator: SentenceEvaluator | None) -> dict[str, Any]:
    """Return the arguments that decide what is kept and told."""
    stage = job.stage
    every = stage.save_every or max(1, job.rows.steps(stage) // SAVES)
    if stage.evaluation is not None:
        every = stage.evaluation.every
    return {
        "output_dir": str(job.checkpoints),
        "run_name": f"{job.recipe.name}/{stage.name}",
        "logging_steps": stage.log_every,
        "logging_nan_inf_filter": False,  # a loss that is no number has to be seen
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": stage.keep,
        "eval_strategy": "no" if evaluator is None else "steps",
        "eval_steps": None if evaluator is None else every,
        "metric_for_best_model": None if evaluator is None else evaluator.primary_metric,
        "greater_is_better": None if evaluator is None else True,
        "report_to": list(job.recipe.report_to),
        "disable_tqdm": True,
    }
