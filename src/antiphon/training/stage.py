"""One stage: a model, a loss and data in sentence-transformers' own trainer, and the folder that comes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
)
from sentence_transformers.sentence_transformer.modules import Normalize
from transformers import TrainerState, set_seed

from antiphon import compat
from antiphon.data.progress_bar import Progress
from antiphon.data.settings import fill
from antiphon.errors import CheckpointError, ConfigError, TrainingError, first_line
from antiphon.model.adapters import attach
from antiphon.model.base import stored_dtype
from antiphon.model.checkpoint import load
from antiphon.model.fingerprint import fingerprint
from antiphon.model.opening import ModelOptions, open_model
from antiphon.model.prompts import has_place, instruct, side_of
from antiphon.training.callbacks import last_checkpoint
from antiphon.training.compiled_layers import compiled_layers
from antiphon.training.dataset import Library, Rows, rows_of
from antiphon.training.finishing import Ending, finish
from antiphon.training.losses import LOSSES, LossKind
from antiphon.training.losses.head import read_head, release_padding
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Model, Stage
from antiphon.training.record import StageRecord
from antiphon.training.trainer import StageJob, make_trainer

logger = logging.getLogger(__name__)


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
    library: Library,
    stage: Stage,
    place: Place,
    *,
    resume: bool,
    begin: Callable[[list[dict[str, Any]]], None],
    tell: Callable[[str], None],
    step: Progress,
) -> tuple[StageRecord, SentenceTransformer | None]:
    """Train one stage; return its record and its model, which the main process writes and reads back.

    `begin` is handed what is known of the rows before the first step, `step` each step's number and how many there are.

    Raises TrainingError where the loss is not finite, CheckpointError where the disk is full, ParityError where the
    saved model is not the trained one.
    """
    recipe = library.recipe
    set_seed(recipe.seed)
    started = time.monotonic()
    kind, settings = loss_kind(stage), settings_of(stage)
    model = opened(recipe.model, place.base)
    base_fingerprint = fingerprint(model)
    _round_weights(model, stage)
    normalize = take_off_normalize(model)
    most = model.max_seq_length
    if stage.max_tokens is not None:
        model.max_seq_length = stage.max_tokens
    rows = rows_of(library, stage, model)
    begin(rows.described())
    _tell_sets(rows, tell)
    instruct(model, spoken_instructions(model, rows.instructions, given=recipe.model.prompts))
    _attach(model, stage)
    job = StageJob(recipe, stage, place.checkpoints, model, kind.build(model, settings), rows)
    trainer = make_trainer(job, kind.collator, settings, tell, step)
    checkpoint = last_checkpoint(place.checkpoints) if resume else None
    with _layers_for(job):
        _train(trainer, stage, checkpoint)
    best = _take_best(trainer, stage)
    model.max_seq_length = most
    # or autocast would stay on the forward, and the vectors be those of bf16
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    outcome = finish(model, ending_of(recipe, stage, place, normalize=normalize))
    done = StageRecord(
        name=stage.name,
        loss=stage.loss,
        base=_seen_from(place.run, place.base),
        base_fingerprint=base_fingerprint,
        model=place.model.relative_to(place.run).as_posix(),
        fingerprint=outcome.fingerprint,
        error_against_spread=outcome.parity.error_against_spread,
        data=rows.described(),
        steps=trainer.state.global_step,
        seconds=round(time.monotonic() - started, 1),
        best_step=best,
        history=[_finite(entry) for entry in trainer.state.log_history],
        prompts={name: prompt for name, prompt in (model.prompts or {}).items() if prompt},
    )
    return done, outcome.model


def _tell_sets(rows: Rows, tell: Callable[[str], None]) -> None:
    for one in rows.sets:
        counted = "" if one.tokens_per_row is None else f", {one.tokens_per_row:,.0f} tokens a row"
        tell(f"  {one.name}: {one.rows:,} rows, {one.batches:,} batches an epoch{counted}")


def opened(settings: Model, base: str) -> SentenceTransformer:
    """Return the model a stage starts from, ready to be trained."""
    options = ModelOptions(
        template=settings.template_spec,
        pooling=settings.pooling,
        max_tokens=settings.max_tokens,
        bidirectional=settings.bidirectional,
        dtype=settings.dtype,
    )
    saved = (Path(base) / "modules.json").exists()
    model = load(base, dtype=settings.dtype) if saved else open_model(base, options)
    if settings.prompts:
        instruct(model, settings.prompts)
    if settings.attention is not None:
        try:
            model[0].model.set_attn_implementation(settings.attention)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"model.attention is {settings.attention!r}: {first_line(error)}") from error
    release_padding(model)
    return model


def spoken_instructions(
    model: SentenceTransformer, instructions: Mapping[str, str], *, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the instructions of the data that training says and the saved model is to say; `given` ones stand."""
    return {
        name: instruction
        for name, instruction in instructions.items()
        if name not in given and has_place(model, side_of(name) or "query")
    }


def _round_weights(model: SentenceTransformer, stage: Stage) -> None:
    """Turn the weights to bf16, in place, where the stage asks for it, and say what that means."""
    if stage.precision != "bf16-pure":
        return
    model.to(torch.bfloat16)
    if stage.lora is None:
        logger.warning(
            "Stage %s trains bf16 weights with bf16 moments: an update below a weight's last bit is lost, and at a "
            "rate of 4e-5 about 8 %% of the weights move in a step. It is what the published trainers do; precision = "
            "'bf16' keeps float32 weights.",
            stage.name,
        )


def _attach(model: SentenceTransformer, stage: Stage) -> None:
    """Attach the stage's adapters; beside bf16 weights they are float32, as peft has them by itself."""
    if stage.lora is None:
        return
    attach(model, stage.lora)
    if stage.precision == "bf16-pure":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def take_off_normalize(model: SentenceTransformer) -> bool:
    """Take Normalize off the end, if it is there: Stage I needs the raw vector, and cosine does without."""
    if isinstance(model[-1], Normalize):
        del model[-1]
        return True
    return False


def _layers_for(job: StageJob) -> AbstractContextManager[None]:
    """Return what has the layers run as the stage asks for."""
    if not job.stage.compile:
        return nullcontext()
    return compiled_layers(job.model, getattr(job.loss, "packer", None), job.stage.precision)


def _train(trainer: SentenceTransformerTrainer, stage: Stage, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        read_head(trainer.model, checkpoint)
        if _was_trained(trainer, checkpoint):
            return
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_write(error):
            raise
        raise CheckpointError(
            f"Stage {stage.name!r}: a checkpoint could not be written ({first_line(error)}). The one before it is "
            "whole; make room and go on with --resume."
        ) from error
    if not trainer.state.global_step:
        raise TrainingError(f"Stage {stage.name!r} took no step; its data gives no whole batch.")


def _was_trained(trainer: SentenceTransformerTrainer, checkpoint: Path) -> bool:
    """Return whether a checkpoint is that of the last step, and take it then: the trainer would make one more."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if state.global_step < trainer.args.max_steps:
        return False
    trainer.state = state
    compat.load_checkpoint(trainer, str(checkpoint))
    return True


def _is_write(error: RuntimeError) -> bool:
    """Return whether torch could not write a file: it has no type of its own for that, only the place in its source."""
    return any(place in str(error) for place in ("PytorchStreamWriter", "inline_container"))


def _take_best(trainer: SentenceTransformerTrainer, stage: Stage) -> int | None:
    """Go back to the best checkpoint where the stage asks for it; return its step."""
    if stage.evaluation is None or not stage.evaluation.best:
        return None
    best = trainer.state.best_model_checkpoint
    if best is None:
        raise TrainingError(f"Stage {stage.name!r} ended before it was evaluated; lower evaluation.every.")
    # the trainer's own way at the end of a run would log an error and go on with the last weights
    compat.load_checkpoint(trainer, best)
    read_head(trainer.model, Path(best))
    return int(best.rsplit("-", 1)[-1])


def ending_of(recipe: Recipe, stage: Stage, place: Place, *, normalize: bool) -> Ending:
    """Return what becomes of a stage's model: the last one has its weights in the base's dtype, unless told."""
    keep = stage.adapter == "keep"  # an adapter stays as it was trained
    is_rounded = recipe.stage[-1].name == stage.name and not keep
    return Ending(
        folder=place.model,
        normalize=normalize,
        dtype=recipe.model.save_dtype or stored_dtype(recipe.model.base) if is_rounded else None,
        keep_adapter=keep,
    )


def _seen_from(run: Path, base: str) -> str:
    path = Path(base)
    return path.relative_to(run).as_posix() if path.is_relative_to(run) else base


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a log entry that JSON can say."""
    return {name: value for name, value in entry.items() if isinstance(value, int | float | str)}
