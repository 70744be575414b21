"""Folders: save a model without changing what it says, load one without running anybody's code.

A folder holds sentence-transformers' files, the weights of the whole causal model (its head survives; stock readers
pass it over), and `antiphon.json` with the template.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import load_file_path
from transformers import AutoModelForCausalLM, PreTrainedModel

from antiphon import __version__, compat
from antiphon.errors import CheckpointError, ConfigError, foreign
from antiphon.files import HeldFolder, held
from antiphon.model.adapters import is_adapted, merge
from antiphon.model.base import check_files
from antiphon.model.build import Dtype, check_companions, check_embedder, check_ready
from antiphon.model.calibration import Calibration, calibration_of, restore
from antiphon.model.foreign_code import check_code, check_inside, check_modules
from antiphon.model.library_messages import hushed
from antiphon.model.weights import adapter_base, check_adapter, check_weights, head_tensors, name_base
from antiphon.modules import MODULES
from antiphon.text.template import Template, template_of

RECORD = "antiphon.json"
RUN = "run.json"
LAST = (RECORD, "modules.json", "config.json")
"""Files without which no reader takes a folder for a model, in the order in which they come last."""


def save(model: SentenceTransformer, path: str | Path) -> Path:
    """Write the model to a new folder and return it; the vectors of the reloaded model are the same.

    Raises CheckpointError where something stands at `path`, where the disk is full, or where the head cannot be found.

    Example:
        >>> import antiphon
        >>> antiphon.save(antiphon.build("nano"), "saved").name
        'saved'
    """
    check_embedder(model, "save")
    with held(path, "save", kind=CheckpointError) as place:
        place.check_free()
        _write(model, place)
    return Path(path)


def check_target(path: str | Path) -> None:
    """Raise the CheckpointError of `save` where something stands at `path`: before long work that is to go there."""
    with held(path, "save", kind=CheckpointError) as place:
        place.check_free()


def save_again(model: SentenceTransformer, path: str | Path, *, whole: bool = True) -> Path:
    """Write the model as `save` does, in place of one that `save` wrote there; other files in the folder stay.

    Where it is not to be `whole`, the adapters that it carries are written alone, with the name of their base.
    """
    with held(path, "save", kind=CheckpointError) as place:
        if not (place.path / RECORD).exists():
            place.check_free()
        _write(model, place, whole=whole)
    return Path(path)


@hushed()
def _write(model: SentenceTransformer, place: HeldFolder, *, whole: bool = True) -> None:
    template, calibration = template_of(model), calibration_of(model)
    licence = getattr(model[0], "base_licence", None)
    if whole and is_adapted(model):  # what is saved needs no adapter, and the caller's may go on to be trained
        model = copy.deepcopy(model)
        merge(model)
    try:
        with (
            place.filled(last=LAST, mark=RECORD) as folder,
            _whole_language_model(model[0]) if whole else nullcontext(),
        ):
            with foreign(f"{place.name} could not be written, nothing was left there", CheckpointError):
                model.save(str(folder), create_model_card=False)
            if not whole:
                name_base(folder)
            record = {"version": __version__, "template": None if template is None else template.to_dict()}
            if licence is not None:
                record["base_licence"] = licence
            if calibration is not None:
                record["calibration"] = calibration.to_dict()
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except SafetensorError as error:
        raise CheckpointError(f"{place.name} could not be written ({error}); nothing was left there.") from error


@hushed()
def load(path: str | Path, *, device: str | None = None, dtype: Dtype | torch.dtype = "auto") -> SentenceTransformer:
    """Load a folder or hub id that sentence-transformers or antiphon wrote; code inside it is never run.

    A folder of `antiphon.train` stands for the model of its last finished stage. Raises CheckpointError where it is
    broken or wants code that is not antiphon's, ModelError where EOS or attention is not what it should be.

    Example:
        >>> import antiphon
        >>> folder = antiphon.save(antiphon.build("nano"), "embedder")
        >>> antiphon.load(folder).encode(["sort a list"]).shape
        (1, 256)
    """
    source = str(model_folder(path))
    entries = _check_modules(source)
    for folder in (Path(source), *Path(source).glob("[0-9]*_*/")):  # a module's files lie in the root or in its own
        if folder.is_dir():
            check_files(folder)
    with foreign(f"{source} cannot be loaded", CheckpointError):
        for holder in (source, adapter_base(source)):
            if holder is not None:
                check_code(holder)
        _check_decoder_weights(source, entries)
        model = compat.load_with_modules(source, MODULES, device=device, model_kwargs={"dtype": dtype})
    if adapter_base(source) is not None:
        check_adapter(model[0].model, source)
        merge(model)
    check_companions(model)
    record = _record(source)
    if record is not None:
        if not hasattr(model[0], "template") and record.get("template"):
            model[0].template_spec = Template.from_dict(record["template"])
        model[0].base_licence = record.get("base_licence")
        if record.get("calibration"):
            restore(model, record["calibration"], source, [str(entry.get("path", "")) for entry in entries])
        check_ready(model)
    return model


def model_folder(path: str | Path) -> str | Path:
    """Return where the model of a training run's folder is, or any other path as it is.

    A run shows its last finished stage's model at the top of its folder; one of 0.1.0 has it in the stage's alone.
    Raises CheckpointError where the run has not finished a stage.
    """
    run = Path(path) / RUN
    if not run.exists() or (Path(path) / "modules.json").exists():
        return path
    try:
        checkpoint = json.loads(run.read_text(encoding="utf-8"))["checkpoint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run} is not the record of a run ({error}).") from error
    if checkpoint is None:
        raise CheckpointError(f"The run in {path} has not finished a stage; go on with antiphon train --resume.")
    check_inside(str(checkpoint), str(run))
    return Path(path) / str(checkpoint)


def _check_decoder_weights(source: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Look at the first module's weights; the others' are loaded strictly by torch."""
    kind, path = str(entries[0]["type"]), str(entries[0].get("path", ""))
    if kind.rsplit(".", 1)[-1] not in ("Transformer", "TemplateInput"):
        return
    folder = str(Path(source) / path) if path else source
    if not path or Path(folder).is_dir():
        check_weights(folder)


def _check_modules(source: str) -> list[dict[str, Any]]:
    """Return the entries of modules.json, all of classes that may be loaded."""
    file = load_file_path(source, "modules.json")
    if file is None:
        raise CheckpointError(
            f"{source} holds no modules.json, so it is no saved embedder; "
            "turn a language model into one with antiphon.build."
        )
    try:
        entries: list[dict[str, Any]] = json.loads(Path(file).read_text(encoding="utf-8"))
        types = [entry["type"] for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is not a list of modules ({error}).") from error
    if not types:
        raise CheckpointError(f"{file} lists no module; take a complete copy of the folder.")
    check_modules(source, entries)
    return entries


def _record(source: str) -> dict[str, Any] | None:
    file = load_file_path(source, RECORD)
    if file is None:
        return None
    try:
        record: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
        if record.get("template"):
            Template.from_dict(record["template"])
        if record.get("calibration"):
            Calibration.from_dict(record["calibration"])
    except (ValueError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{file} is not a record of antiphon ({error}).") from error
    return record


@contextmanager
def _whole_language_model(module: Transformer) -> Iterator[None]:
    """Let the module save its backbone as the `*ForCausalLM` that it came from."""
    backbone = module.model
    module.model = _with_head(backbone, getattr(module, "head", None))
    try:
        yield
    finally:
        module.model = backbone


def _with_head(backbone: PreTrainedModel, trained: torch.nn.Linear | None) -> PreTrainedModel:
    """Return the `*ForCausalLM` around the backbone, its untied head the trained one or that of the base."""
    config = copy.deepcopy(backbone.config)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    setattr(whole, whole.base_model_prefix, backbone)
    head = whole.get_output_embeddings()
    if config.get_text_config().tie_word_embeddings:
        whole.tie_weights()
    elif head is not None:
        tensors = {"weight": trained.weight.detach()} if trained is not None else head_tensors(compat.source_of(config))
        for name, tensor in tensors.items():
            setattr(head, name, torch.nn.Parameter(tensor.to(backbone.dtype), requires_grad=False))
    return whole
