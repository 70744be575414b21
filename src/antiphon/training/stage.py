"""One stage: a model, a loss and data in sentence-transformers' own trainer, and the folder that comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardCallback
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, set_seed

from antiphon import parity
from antiphon.adapters import Adapter, attach, merge
from antiphon.checkpoint import load, save
from antiphon.errors import CheckpointError, ConfigError, ParityError, TrainingError, first_line
from antiphon.fingerprint import fingerprint
from antiphon.losses import LOSSES, LossKind
from antiphon.losses.head import read_head, release_padding
from antiphon.opening import Shape, open_model
from antiphon.overriding import fill
from antiphon.parity import Parity, Vectors
from antiphon.recipe import Model, Recipe, Stage
from antiphon.record import StageRecord
from antiphon.training.callbacks import Calls, Mark, Tell, Watch, last_checkpoint
from antiphon.training.data import Library, Rows, rows_of

SAVES = 10
_PRECISIONS: Mapping[str, dict[str, bool]] = {"float32": {}, "bf16": {"bf16": True}, "fp16": {"fp16": True}}
_CHECKPOINTING = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stage starts and where its files go."""

    base: str
    """What the first stage's model is built from, or the folder of the stage before."""
    run: Path
    folder: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The folder of the result."""
        return self.folder / "model"


def loss_kind(stage: Stage) -> LossKind:
    """Return the row of LOSSES that a stage names; ConfigError where there is none."""
    if stage.loss not in LOSSES:
        raise ConfigError(f"stage.{stage.name}.loss is {stage.loss!r}; take one of {', '.join(LOSSES)}.")
    return LOSSES[stage.loss]


def settings_of(stage: Stage) -> Any:
    """Return the settings of the stage's loss, checked."""
    return fill(loss_kind(stage).settings, stage.settings, f"stage.{stage.name}.settings")


def run_stage(
    library: Library, stage: Stage, place: Place, *, resume: bool, tell: Callable[[str], None]
) -> StageRecord:
    """Train one stage and return its record; the folder of its model is written by the main process.

    Raises TrainingError where the loss is not finite, CheckpointError where the disk is full, ParityError where the
    saved model is not the trained one.
    """
    recipe = library.recipe
    set_seed(recipe.seed)
    started = time.monotonic()
    settings = settings_of(stage)
    model = opened(recipe.model, place.base)
    base_fingerprint = fingerprint(model)
    normalize = _take_off_normalize(model)
    most = model.max_seq_length
    if stage.max_tokens is not None:
        model.max_seq_length = stage.max_tokens
    rows = rows_of(library, stage, model)
    for one in rows.sets:
        counted = "" if one.tokens_per_row is None else f", {one.tokens_per_row:,.0f} tokens a row"
        tell(f"  {one.name}: {one.rows:,} rows, {one.batches:,} batches an epoch{counted}")
    if stage.lora is not None:
        attach(model, Adapter(**stage.lora.model_dump()))
    kind = loss_kind(stage)
    loss = kind.build(model, settings)
    trainer = _trainer(recipe, stage, place, model, loss, rows, tell)
    trainer.data_collator = kind.collator(model, trainer.args, settings) or trainer.data_collator
    checkpoint = last_checkpoint(place.checkpoints) if resume else None
    if checkpoint is not None:
        read_head(model, checkpoint)
    _train(trainer, stage, checkpoint)
    best = _take_best(trainer, stage)
    history = list(trainer.state.log_history)
    steps = trainer.state.global_step
    model.max_seq_length = most
    outcome = _finish(model, place.model, normalize)
    return StageRecord(
        name=stage.name,
        loss=stage.loss,
        base=_seen_from(place.run, place.base),
        base_fingerprint=base_fingerprint,
        model=place.model.relative_to(place.run).as_posix(),
        fingerprint=outcome[0],
        error_against_spread=outcome[1].error_against_spread,
        data=rows.described(),
        steps=steps,
        seconds=round(time.monotonic() - started, 1),
        best_step=best,
        history=[_finite(entry) for entry in history],
    )


def opened(settings: Model, base: str) -> SentenceTransformer:
    """Return the model a stage starts from, ready to be trained."""
    shape = Shape(
        template=settings.template,
        pooling=settings.pooling,
        max_tokens=settings.max_tokens,
        bidirectional=settings.bidirectional,
    )
    saved = (Path(base) / "modules.json").exists()
    model = load(base, dtype=settings.dtype) if saved else open_model(base, shape, dtype=settings.dtype)
    if settings.attention is not None:
        try:
            model[0].model.set_attn_implementation(settings.attention)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"model.attention is {settings.attention!r}: {first_line(error)}") from error
    release_padding(model)
    model.model_card_data.widget = [{}]  # or the trainer computes examples for a card that nobody asked for
    return model


def _take_off_normalize(model: SentenceTransformer) -> bool:
    """Take Normalize off the end, if it is there: Stage I needs the raw vector, and cosine does without."""
    if isinstance(model[-1], Normalize):
        del model[-1]
        return True
    return False


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


def _trainer(
    recipe: Recipe,
    stage: Stage,
    place: Place,
    model: SentenceTransformer,
    loss: nn.Module,
    rows: Rows,
    tell: Callable[[str], None],
) -> SentenceTransformerTrainer:
    device, accumulation = batching(stage, PartialState().num_processes)
    steps = rows.steps(stage)
    evaluation = stage.evaluation
    every = evaluation.every if evaluation else stage.save_every or max(1, steps // SAVES)
    callbacks: list[TrainerCallback] = [Watch(stage.name), Mark(model), Calls(loss), Tell(tell)]
    evaluator = None
    if evaluation is not None:
        from antiphon.evaluation import evaluator as evaluator_of  # the one edge between verbs

        evaluator = evaluator_of(
            evaluation.tasks, instructions=evaluation.instructions, limit=evaluation.limit, seed=recipe.seed
        )
        if evaluation.patience is not None:
            callbacks.append(EarlyStoppingCallback(evaluation.patience))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(place.checkpoints),
        run_name=f"{recipe.name}/{stage.name}",
        per_device_train_batch_size=device,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        learning_rate=stage.learning_rate,
        warmup_steps=stage.warmup_steps,
        lr_scheduler_type=stage.schedule,
        weight_decay=stage.weight_decay,
        optim=stage.optimizer,
        max_grad_norm=stage.gradient_clip,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_drop_last=True,
        ddp_find_unused_parameters=False,
        logging_steps=stage.log_every,
        logging_nan_inf_filter=False,  # a loss that is no number has to be seen
        save_strategy="steps",
        save_steps=every,
        save_total_limit=stage.keep,
        eval_strategy="steps" if evaluation else "no",
        eval_steps=every if evaluation else None,
        metric_for_best_model=evaluator.primary_metric if evaluator else None,
        greater_is_better=True if evaluator else None,
        report_to=list(recipe.report_to),
        disable_tqdm=True,
        prompts=rows.prompts,
        router_mapping=rows.router_mapping,
        multi_dataset_batch_sampler=rows.sampler,
        **_PRECISIONS[stage.precision],
        **(_CHECKPOINTING if stage.gradient_checkpointing else {}),
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.datasets,
        loss=loss,
        evaluator=evaluator,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # a library prints nothing; Tell hands the lines on
    # a run's card is made where it is exported
    trainer.remove_callback(SentenceTransformerModelCardCallback)
    return trainer


def _train(trainer: SentenceTransformerTrainer, stage: Stage, checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise CheckpointError(
            f"Stage {stage.name!r}: a checkpoint could not be written ({first_line(error)}). The one before it is "
            "whole; make room and go on with --resume."
        ) from error
    if not trainer.state.global_step:
        raise TrainingError(f"Stage {stage.name!r} took no step; its data gives no whole batch.")


def _take_best(trainer: SentenceTransformerTrainer, stage: Stage) -> int | None:
    """Go back to the best checkpoint where the stage asks for it; return its step."""
    if stage.evaluation is None or not stage.evaluation.best:
        return None
    best = trainer.state.best_model_checkpoint
    if best is None:
        raise TrainingError(f"Stage {stage.name!r} ended before it was evaluated; lower evaluation.every.")
    # the trainer's own way at the end of a run would log an error and go on with the last weights
    trainer._load_from_checkpoint(best)
    read_head(trainer.model, Path(best))
    return int(best.rsplit("-", 1)[-1])


def _finish(model: SentenceTransformer, folder: Path, normalize: bool) -> tuple[str, Parity]:
    """Merge, save, reload; return the fingerprint of what was saved and its parity with what was trained."""
    processes = PartialState()
    outcome: list[Any] = []
    if processes.is_main_process:
        model.eval()
        before = _vectors(model)
        merge(model)
        if normalize:
            model.append(Normalize())
        save(model, folder)
        again = load(folder, dtype=str(model.dtype).removeprefix("torch."), device=str(model.device))
        limit = parity.LIMITS.get(str(model.dtype).removeprefix("torch."), parity.LIMITS["float32"])
        same = parity.compare(before, _vectors(again), limit=limit)
        outcome = [fingerprint(again), same]
        if not same.equal:
            raise ParityError(f"The model saved in {folder} is not the trained one: {same}.")
    processes.wait_for_everyone()
    return (outcome[0], outcome[1]) if outcome else ("", Parity(1.0, 0.0, 0.0, 0))


def _vectors(model: SentenceTransformer) -> Vectors:
    return parity.encode(model, parity.unlike_texts())


def _seen_from(run: Path, base: str) -> str:
    path = Path(base)
    return path.relative_to(run).as_posix() if path.is_relative_to(run) else base


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a log entry that JSON can say."""
    return {name: value for name, value in entry.items() if isinstance(value, int | float | str)}
