"""Runs that end well and have taught nothing: told before the first step where the data say so, else at step 20.

B rows of a batch over all processes that share candidates, C document columns.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from antiphon.data.pairs import LABEL
from antiphon.data.processes import processes
from antiphon.training.losses import ContrastiveLoss, SimCSELoss

if TYPE_CHECKING:
    from datasets import Dataset

STEPS = 20
"""The step at which a run is judged; a shorter one at its last."""
NEAR = 0.01
"""How near a loss is to that of guessing, as a share of it, when it stands there."""
MOSTLY = 0.5
"""The share of a set's rows from which one document is most of it."""
_SAMPLE = 10_000
_FEW = 4

logger = logging.getLogger(__name__)


def warn_of_data(stage: str, loss: nn.Module, datasets: Mapping[str, Dataset], rows: int) -> None:
    """Tell of batches and sets that can teach nothing; `rows` are those of a process's batch."""
    if isinstance(loss, ContrastiveLoss):
        together = rows * (processes().num_processes if loss.settings.gather_across_devices else 1)
        bare = [name for name, dataset in datasets.items() if _documents(loss, _texts(dataset)) * together == 1]
        if bare:
            logger.warning(
                "Stage %r: a batch of %s is one pair without negatives, so its loss is 0 and nothing is learned; "
                "raise batch_size and device_batch_size, or mine negatives.", stage, ", ".join(bare),
            )  # fmt: skip
    for name, dataset in datasets.items():
        text, share = most_common(dataset)
        if share > MOSTLY and len(dataset) > 1:
            logger.warning(
                "Stage %r: %.0f %% of the rows of %s have one and the same document (%.60r), so there is little to "
                "tell apart; look at the columns and at what the source repeats.", stage, 100 * share, name, text,
            )  # fmt: skip


def most_common(dataset: Dataset) -> tuple[str, float]:
    """Return the text that most rows have for their document, and their share, over a sample of large sets."""
    names = _texts(dataset)
    column = names[1] if len(names) > 1 else names[0]
    picked = np.unique(np.linspace(0, len(dataset) - 1, num=min(len(dataset), _SAMPLE), dtype=int))
    texts = dataset.with_format(None).select(picked)[column]
    ((text, count),) = Counter(map(str, texts)).most_common(1)  # a row may be a block of token ids
    return text, count / len(picked)


class NothingLearned(TrainerCallback):
    """Warns at step 20 where the loss stands at that of guessing, or all gradients have been zero."""

    def __init__(self, stage: str, loss: nn.Module) -> None:
        self.stage, self.loss = stage, loss
        self._excess: list[torch.Tensor] = []
        """By batch, the loss as a share of that of guessing."""
        self._moved = 0
        self._looked = 0
        self._handle = loss.register_forward_hook(self._keep) if isinstance(loss, ContrastiveLoss) else None

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look whether any weight has a gradient."""
        if self._looked >= STEPS:
            return
        gradients = [weight.grad for weight in kwargs["model"].parameters() if weight.grad is not None]
        self._looked += 1
        self._moved += not gradients or any(bool(gradient.any()) for gradient in gradients)  # none: kept elsewhere

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Judge the run, once."""
        if self._looked < min(STEPS, state.max_steps) or (self._handle is None and self._looked > STEPS):
            return
        if self._handle is not None:
            self._handle.remove()
        self._looked = STEPS + 1
        if not processes().is_main_process:
            return
        if not self._moved:
            logger.warning(
                "Stage %r: all gradients were zero up to step %d, so nothing is learned; look whether the batches hold "
                "unlike texts, and whether the weights that should learn are trained at all.",
                self.stage, state.global_step,
            )  # fmt: skip
        elif stands(torch.stack(self._excess).tolist() if self._excess else []):
            logger.warning(
                "Stage %r: at step %d the loss still is that of guessing, ln of the number of candidates; the vectors "
                "do not tell texts apart. Look at the pairs with `antiphon show`, lower the temperature, raise the "
                "learning_rate, or wait where the warm-up is longer than this.", self.stage, state.global_step,
            )  # fmt: skip
        self._excess.clear()

    def _keep(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        guess = _guess(self.loss, arguments[0])
        if guess and isinstance(output, torch.Tensor):
            self._excess.append(output.detach().float() / guess)


def stands(shares: list[float]) -> bool:
    """Return whether losses, as shares of that of guessing, are all near it and do not fall."""
    if len(shares) < _FEW:
        return False
    quarter = len(shares) // _FEW
    first, last = np.mean(shares[:quarter]), np.mean(shares[-quarter:])
    return all(abs(share - 1) <= NEAR for share in shares) and bool(last > first - NEAR / 2)


def _guess(loss: nn.Module, columns: Iterable[Mapping[str, Any]]) -> float:
    """Return the loss of a model that finds all candidates alike, ln(B C); 0 where it is not known."""
    columns = list(columns)
    if not isinstance(loss, ContrastiveLoss) or len(loss.settings.directions) > 1 or not columns:
        return 0.0
    rows = len(columns[0]["attention_mask"]) * (processes().num_processes if loss.settings.gather_across_devices else 1)
    return math.log(rows * _documents(loss, columns)) * sum(loss.widths.values())


def _documents(loss: ContrastiveLoss, columns: Iterable[Any]) -> int:
    return 1 if isinstance(loss, SimCSELoss) else len(list(columns)) - 1


def _texts(dataset: Dataset) -> list[str]:
    return [name for name in dataset.column_names if name != LABEL]
