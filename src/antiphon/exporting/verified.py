"""The end of every export: the same texts in the target's own runtime, in a fresh process, by the rule of parity."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from antiphon.errors import ParityError
from antiphon.exporting.readings import ExportedReading
from antiphon.files import scratch
from antiphon.model.parity import LIMITS, Parity, Vectors, check_finite, compare
from antiphon.model.prompts import ENCODE_METHODS, encode_method
from antiphon.model.variants import in_dtype

PLAIN, ONNX, GGUF = "plain_encode.py", "onnx_encode.py", "gguf_encode.py"
PYTHON = sys.executable
"""The interpreter of the target's process."""


@dataclass(frozen=True, kw_only=True)
class FormSettings:
    """What a form is told beside the model."""

    freeze_prompts: bool = False
    """One folder a prompt, its words in the tokenizer, also where the caller could put them before the text."""
    dimensions: tuple[int, ...] = ()
    """Widths that the vectors may be cut to."""
    source: str = ""
    """The name under which the model was opened; nothing for one that was handed over."""


@dataclass(frozen=True)
class Call:
    """How the target is asked for the vectors of one reading."""

    folder: Path
    method: str = "encode"
    prompt: str | None = None
    """Handed over as it is; None leaves the target's own."""
    trust: bool = False
    file: str = ""
    """The graph or the GGUF file."""


def by_prompts(folder: Path, wanted: Sequence[ExportedReading], *, trust: bool = False) -> dict[str, Call]:
    """Return how a folder is asked for each reading whose prompt is handed over."""
    return {one.name: Call(folder, method=ENCODE_METHODS[one.side], prompt=one.prompt, trust=trust) for one in wanted}


def ask(program: str, calls: Mapping[str, Call], texts: Sequence[str]) -> dict[str, Vectors]:
    """Run a program of ours on folders in a fresh process and return its vectors, by the names of the calls.

    Raises ParityError, with the last line of what it said, where it fails.
    """
    with scratch() as folder:
        request, out = folder / "request.json", folder / "vectors.npz"
        content = {
            "calls": {name: {**vars(call), "folder": str(call.folder.resolve())} for name, call in calls.items()},
            "texts": list(texts),
            "out": str(out),
        }
        request.write_text(json.dumps(content), encoding="utf-8")
        done = subprocess.run(
            [PYTHON, "-P", str(Path(__file__).with_name(program)), str(request)],
            capture_output=True,
            text=True,
            cwd=folder,
        )
        if done.returncode != 0:
            last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ParityError(f"The export could not be run in a process of its own: {last_line}")
        with np.load(out) as arrays:
            return {name: np.asarray(arrays[name], dtype=np.float32) for name in arrays.files}


def reference(
    model: SentenceTransformer, wanted: Sequence[ExportedReading], texts: Sequence[str]
) -> dict[str, Vectors]:
    """Return the model's own vectors in float32, by the names of the readings; ModelError where one is not finite."""
    with in_dtype(model, torch.float32):  # where an error cannot hide behind rounding
        found = {}
        for reading in wanted:
            raw = encode_method(model, reading.side)(
                list(texts), prompt=reading.prompt, batch_size=8, show_progress_bar=False
            )
            found[reading.name] = np.asarray(raw, dtype=np.float32)
            check_finite(found[reading.name], texts, "float32")
        return found


def check(
    found: Mapping[str, Vectors], expected: Mapping[str, Vectors], *, form: str, limit: float = LIMITS["float32"]
) -> Parity:
    """Return the worst parity of all readings.

    Raises ParityError where one is above the limit.
    """
    outcomes = {name: compare(expected[name], vectors, limit=limit) for name, vectors in found.items()}
    name, worst = max(outcomes.items(), key=lambda item: item[1].error_against_spread)
    if not worst.equal:
        raise ParityError(
            f"The {form} export does not give the model's vectors ({name} prompt: {worst}), so nothing was written."
        )
    return replace(worst, texts=sum(outcome.texts for outcome in outcomes.values()))
