"""What watches a run: a loss that is no number ends it before anything is saved, and a checkpoint is known to be whole.

The trainer writes a checkpoint file by file. Only when all of it is there does it get a mark, so that one torn by a
kill or a full disk is told from a whole one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from antiphon.data.processes import processes
from antiphon.data.progress_bar import Progress
from antiphon.errors import TrainingError
from antiphon.training.losses.head import write_head

COMPLETE = "antiphon-complete"
WATCHED = ("loss", "grad_norm")
_UNTOLD = ("epoch", "learning_rate", "step")


class Watch(TrainerCallback):
    """Raise a TrainingError when the loss or its gradient is not finite, before a checkpoint of that step."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for the log entry of every step that is to be saved: it comes before the saving."""
        if control.should_save or state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at what is logged."""
        for name in WATCHED:
            value = kwargs["logs"].get(name)
            if value is not None and not math.isfinite(value):
                raise TrainingError(
                    f"Stage {self.stage!r}: {name} is {value} at step {state.global_step}. Nothing was saved of it; "
                    "the last checkpoint is whole. Train again with a lower learning_rate, longer warm-up, or in fp32."
                )


class CheckpointMarker(TrainerCallback):
    """Complete each checkpoint with the untied head, and mark it when all processes have written their part."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write head and mark."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        everyone = processes()
        everyone.wait_for_everyone()
        if everyone.is_main_process:
            write_head(self.model, folder)
            (folder / COMPLETE).write_text(f"{state.global_step}\n", encoding="utf-8")
        everyone.wait_for_everyone()


class Tell(TrainerCallback):
    """Hand each log entry on as a line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say step, loss and its parts, or what an evaluation gave."""
        values = {name: value for name, value in kwargs["logs"].items() if name not in _UNTOLD}
        if values and "train_runtime" not in values:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))
            self.tell(f"  step {state.global_step:,} of {state.max_steps:,}: {figures}")


class Steps(TrainerCallback):
    """Hand on how many steps are done, and of how many."""

    def __init__(self, step: Progress) -> None:
        self.step = step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say where a run begins; one that is resumed begins later than at zero."""
        self.step(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step."""
        self.step(state.global_step, state.max_steps)


class Calls(TrainerCallback):
    """Tell a loss that counts its calls how many there were before a resumed run."""

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the count."""
        if hasattr(self.loss, "calls"):
            self.loss.calls = state.global_step * args.gradient_accumulation_steps


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder; torn ones are removed, they are of no use to anybody."""
    whole = None
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.split("-")[-1])):
        if (path / COMPLETE).exists():
            whole = path
        elif processes().is_main_process:
            shutil.rmtree(path)
    return whole
