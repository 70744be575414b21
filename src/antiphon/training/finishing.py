"""The end of a stage: what was trained is merged, rounded, written, read back and compared; what is needless goes.

A run's folder is a model's folder: its files at the top are those of the last finished stage, linked where that can be.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from antiphon.data.processes import processes
from antiphon.errors import ParityError
from antiphon.files import OURS, HeldFolder
from antiphon.files.folders import LISTED
from antiphon.model import parity
from antiphon.model.adapters import merge
from antiphon.model.checkpoint import LAST, RECORD, load, save_again
from antiphon.model.fingerprint import fingerprint
from antiphon.model.parity import LIMITS, Parity, Vectors
from antiphon.model.rounding import Rounding
from antiphon.training.card_usage import use_sections
from antiphon.training.model_card import CARD, card
from antiphon.training.record import RunRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What becomes of a trained model."""

    folder: Path
    normalize: bool
    """Whether it ends with Normalize, which training took off."""
    dtype: str | None = None
    """Of the weights that are written; as they were trained without it."""
    keep_adapter: bool = False
    """Whether the adapter alone is written, beside the name of its base."""


@dataclass(frozen=True)
class Finished:
    """What became of a trained model; in processes beside the main one nothing."""

    fingerprint: str
    parity: Parity
    model: SentenceTransformer | None
    """As it was read back whole."""


def finish(model: SentenceTransformer, ending: Ending) -> Finished:
    """Write a trained model, in the main process, and compare what is read back with what was trained.

    Raises ParityError where what is read back is not what was trained.
    """
    state = processes()
    outcome = Finished("", Parity(1.0, 0.0, 0.0, 0), None)
    if state.is_main_process:
        model.eval()
        before = compared_vectors(model)
        if not ending.keep_adapter:
            merge(model)
        if ending.normalize:
            model.append(Normalize())
        limit = _rounded(model, ending)
        again, same = saved_and_read(model, ending.folder, before, limit=limit, whole=not ending.keep_adapter)
        outcome = Finished(fingerprint(again), same, None if ending.keep_adapter else again)
        if not same.equal:
            raise ParityError(f"The model saved in {ending.folder} is not the trained one: {same}.")
    state.wait_for_everyone()
    return outcome


def _rounded(model: SentenceTransformer, ending: Ending) -> float:
    """Round the weights to the dtype they are written in; return the error against spread that counts as equal then."""
    if ending.dtype in (None, "float32", parity.dtype_of(model)):
        return parity.limit_of(model)
    assert ending.dtype is not None
    rounding = Rounding.of(model, parity.unlike_texts(), "query", (ending.dtype,))
    if rounding.error > LIMITS[ending.dtype]:
        logger.warning(
            "Rounded to %s, which the base has, the vectors move by %.2f of their spread; [model] save_dtype = "
            "'float32' writes the weights as they were trained.",
            ending.dtype, rounding.error,
        )  # fmt: skip
    model[0].to(getattr(torch, ending.dtype))  # the decoder and its head; a calibration behind it stays in float32
    return rounding.limit


def saved_and_read(
    model: SentenceTransformer, folder: Path, before: Vectors, *, limit: float | None = None, whole: bool = True
) -> tuple[SentenceTransformer, Parity]:
    """Save a model to a new folder; return what is read back, and how its vectors compare with those of before."""
    save_again(model, folder, whole=whole)  # a run that was killed before it was recorded may have left one there
    again = load(folder, dtype=model.dtype, device=str(model.device))
    judged = parity.limit_of(model) if limit is None else limit
    return again, parity.compare(before, compared_vectors(again), limit=judged)


def compared_vectors(model: SentenceTransformer) -> Vectors:
    """Return the vectors by which a run tells whether a model is the one that was saved."""
    return parity.encode(model, parity.unlike_texts())


def show_at_top(place: HeldFolder, run: RunRecord, model: Path, written: SentenceTransformer | None) -> None:
    """Let the files of a finished stage's model stand in the run's own folder, with a card of it as it was written."""
    written = load(model, device="cpu") if written is None else written
    with place.filled(last=LAST, mark=RECORD) as top:
        for path in sorted(model.rglob("*")):
            inside = path.relative_to(model)
            if path.is_dir():
                (top / inside).mkdir(exist_ok=True)
            elif not path.name.startswith(OURS):
                _link(path, top / inside)
        if _is_ours(place.path):
            (top / CARD).write_text(card(written, "", use_sections("run", top), run=run), encoding="utf-8")


def _is_ours(run: Path) -> bool:
    """Return whether the card in a run's folder may be written: what a user wrote there stays."""
    if not (run / CARD).exists():
        return True
    record = json.loads((run / RECORD).read_text(encoding="utf-8")) if (run / RECORD).exists() else {}
    return CARD in record.get(LISTED, ())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the same bytes, on the disk once
    except OSError:
        shutil.copy2(source, target)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a stage that is finished: nothing goes on from them any more."""
    for path in folder.glob("checkpoint-*"):
        if path.name.removeprefix("checkpoint-").isdigit():
            shutil.rmtree(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
