"""From an embedder to the folders that other tools read: each form ends in a check in that tool's own runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sentence_transformers import SentenceTransformer

from antiphon.errors import CheckpointError, ConfigError
from antiphon.exporting import gguf_form, hub, onnx_form, portable
from antiphon.exporting.onnx_form import INT8_LIMIT, QualityCost
from antiphon.exporting.readings import probes, readings
from antiphon.exporting.stock_files import longest_sequence
from antiphon.exporting.verified import GGUF, ONNX, PLAIN, Call, FormSettings, ask, check, reference
from antiphon.files import HeldFolder, held
from antiphon.model.adapters import is_adapted, merge
from antiphon.model.checkpoint import LAST
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.library_messages import hushed
from antiphon.model.opening import open_model
from antiphon.model.parity import LIMITS, Parity

__all__ = ["FORMS", "Exported", "export"]


@dataclass(frozen=True)
class Form:
    """How a form is written, in which runtime it is checked, and how far it may be off."""

    write: Callable[[SentenceTransformer, Path, FormSettings], dict[str, Call]]
    program: str
    limit: float = LIMITS["float32"]
    finish: Callable[[Mapping[str, Call]], QualityCost] | None = None


FormName = Literal["portable", "hub", "onnx", "onnx-int8", "gguf", "gguf-bf16", "gguf-q8_0"]
FORMS: Mapping[FormName, Form] = {
    "portable": Form(portable.write, PLAIN),
    "hub": Form(hub.write, PLAIN),
    "onnx": Form(onnx_form.write, ONNX),
    "onnx-int8": Form(onnx_form.write_small, ONNX, INT8_LIMIT, onnx_form.finish),
    "gguf": Form(gguf_form.writes("f16"), GGUF, LIMITS["float16"]),
    "gguf-bf16": Form(gguf_form.writes("bf16"), GGUF, INT8_LIMIT),
    "gguf-q8_0": Form(gguf_form.writes("q8_0"), GGUF, INT8_LIMIT),
}
COUNTED = ("portable", "gguf", "gguf-bf16", "gguf-q8_0")
"""The forms of which an engine must be told the length of a sequence."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how near it is to the model."""

    form: str
    folder: Path
    prompts: dict[str, Path]
    """The folder of every prompt; all the same where the caller puts prompts before the text."""
    parity: Parity
    """Of the worst prompt, both sides computed in float32."""
    cost: QualityCost | None = None
    """What 8 bits cost."""
    longest: int | None = None
    """Of a portable folder and a GGUF file: the most tokens of a sequence, which engines are told."""


@hushed(bars=False)
def export(
    model: SentenceTransformer | str | Path,
    *,
    to: FormName,
    out: str | Path,
    freeze_prompts: bool = False,
    dimensions: Sequence[int] = (),
) -> Exported:
    """Write a model in another tool's form to a new folder, and check it there against the model over real texts.

    `to` is "portable" (stock files: the template in tokenizer.json, a sub-folder for every prompt that reads
    differently), "hub" (with its own module file, for what stock files cannot say), "onnx" or "onnx-int8" (graph and
    tokenizer.json, pooled and normalised), "gguf", "gguf-bf16" or "gguf-q8_0" (a file for llama.cpp in float16,
    bfloat16 or blocks of 8 bits, and the tokenizer.json that gives the ids to send). `freeze_prompts` puts prompts that
    are prefixes into the tokenizer as well. `dimensions` are the widths that a Matryoshka model's vectors may be cut
    to. Adapters are merged into what is written; vectors come out at length 1.

    Raises ConfigError for a setting that cannot be used, ModelError, with the way out, for what the form cannot say,
    CheckpointError where something stands at `out`, ParityError where the export gives other vectors than the model.
    Nothing is left at `out` then.

    Example:
        >>> import antiphon
        >>> exported = antiphon.export(antiphon.build("nano", pooling="last", layers=1), to="portable", out="portable")
        >>> exported.form, exported.parity.equal
        ('portable', True)
    """
    if to not in FORMS:
        raise ConfigError(f"There is no form {to!r}; take one of {', '.join(FORMS)}.")
    with held(out, "export", kind=CheckpointError) as place:
        place.check_free()
        return _written(model, to, place, freeze_prompts=freeze_prompts, dimensions=dimensions)


def _written(
    model: SentenceTransformer | str | Path,
    to: FormName,
    place: HeldFolder,
    *,
    freeze_prompts: bool,
    dimensions: Sequence[int],
) -> Exported:
    opened = _opened(model)
    settings = FormSettings(
        freeze_prompts=freeze_prompts,
        dimensions=_checked(dimensions, opened),
        source="" if isinstance(model, SentenceTransformer) else str(model),
    )
    form = FORMS[to]
    with evaluation_mode(opened):
        with place.filled(last=LAST) as temporary:
            calls = form.write(opened, temporary, settings)
            texts = probes(opened)
            parity = check(
                ask(form.program, calls, texts),
                reference(opened, readings(opened), texts),
                form=to,
                limit=form.limit,
            )
            cost = form.finish(calls) if form.finish else None
            folders = {call.folder for call in calls.values()} if to in COUNTED else set()
            longest = max(map(longest_sequence, folders), default=None)
            for file in temporary.rglob("*"):  # a server seldom runs as the user who exported
                file.chmod(0o755 if file.is_dir() else 0o644)
        if place.made:
            place.path.chmod(0o755)
    target = Path(place.name)
    places = {name: target / call.folder.relative_to(temporary) for name, call in calls.items()}
    return Exported(form=to, folder=target, prompts=places, parity=parity, cost=cost, longest=longest)


def _opened(model: SentenceTransformer | str | Path) -> SentenceTransformer:
    """Return the model without adapters; one that was handed over keeps its own."""
    if not isinstance(model, SentenceTransformer):
        opened = open_model(str(model))
        merge(opened)
        return opened
    if not is_adapted(model):
        return model
    merged = copy.deepcopy(model)
    merge(merged)
    return merged


def _checked(dimensions: Sequence[int], model: SentenceTransformer) -> tuple[int, ...]:
    width = model.get_embedding_dimension()
    for wanted in dimensions:
        if not isinstance(wanted, int) or not 1 <= wanted <= width:
            raise ConfigError(f"A vector of {width} dimensions cannot be cut to {wanted!r}; name 1 to {width}.")
    return tuple(sorted(set(dimensions)))
