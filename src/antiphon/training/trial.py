"""What a run needs later on, tried before its first step: all stages' adapters, the losses, a save that reads back.

Hours of training must not end in a model that cannot be written, nor in a stage that cannot begin.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon import compat
from antiphon.errors import AntiphonError, CheckpointError, ModelError
from antiphon.files import OURS
from antiphon.model.adapters import attach, merge
from antiphon.model.layers import keep_layers
from antiphon.model.weights import head_tensors
from antiphon.training.finishing import compared_vectors, saved_and_read
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Stage
from antiphon.training.stage import loss_kind, opened, settings_of, take_off_normalize

TRIAL = f"{OURS}-trial"
WHOLE_BELOW = 2 << 30
"""Bytes of weights up to which the model is really written and read; above, what a save needs is looked at only."""


def try_run(recipe: Recipe, stages: Sequence[Stage], base: str, folder: Path) -> None:
    """Try what no stage could do without, in a temporary place in the folder; raise what it would raise hours later.

    Raises as `try_ending` and `try_losses` do.
    """
    model = opened(recipe.model, base)
    try_ending(model, stages, base, folder)
    try_losses(model, stages[1:])


def try_losses(model: SentenceTransformer, stages: Sequence[Stage]) -> None:
    """Make the losses and collators of stages on the model's first layer; the model is of no use behind it.

    Raises an error of the loss's own kind that names the stage: for a width or a vocabulary head that the model has
    not, for a template or an attention that the loss cannot work with.
    """
    if not stages:
        return
    take_off_normalize(model)
    with suppress(ModelError):  # layers that cannot be left off are tried whole, which takes longer
        keep_layers(model[0].model, 1)
    most = model.max_seq_length
    for stage in stages:
        kind, settings = loss_kind(stage), settings_of(stage)
        model.max_seq_length = stage.max_tokens or most
        try:
            kind.build(model, settings)
            kind.collator(model, None, settings)
        except AntiphonError as error:
            raise type(error)(f"stage.{stage.name} ({stage.loss}): {error} Nothing was trained.") from error


def try_ending(model: SentenceTransformer, stages: Sequence[Stage], base: str, folder: Path) -> None:
    """Attach and merge the adapters of every stage and save the untouched model, in a temporary place in the folder.

    Raises ConfigError for adapters that cannot be attached, CheckpointError for a head that is not there or a disk that
    is too small, ModelError where the model that is read back is not the one that was written.
    """
    for lora in {stage.lora for stage in stages if stage.lora is not None}:
        attach(model, lora)
        merge(model)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    _check_disk_space(folder, weights)
    if weights > WHOLE_BELOW:
        _check_head(model)
        return
    before = compared_vectors(model)
    place = folder / TRIAL
    try:
        _, same = saved_and_read(model, place / "model", before)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if not same.equal:
        raise ModelError(
            f"{base} cannot be trained here: saved and read back untouched it gives other vectors ({same}). Nothing "
            "was trained; report it with the model's config.json."
        )


def _check_disk_space(folder: Path, weights: int) -> None:
    free = shutil.disk_usage(_standing(folder)).free
    if free < weights:
        raise CheckpointError(
            f"{folder} has {free / 2**30:,.1f} GiB left and one model takes {weights / 2**30:,.1f}; make room or set "
            "out to another disk. Nothing was trained."
        )


def _check_head(model: SentenceTransformer) -> None:
    config = model[0].model.config
    if not config.get_text_config().tie_word_embeddings and getattr(model[0], "head", None) is None:
        head_tensors(compat.source_of(config))


def _standing(folder: Path) -> Path:
    """Return the folder itself or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
