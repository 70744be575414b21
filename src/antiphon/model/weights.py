"""Are all weights of a model in its files? Nothing that was missing may be made up in silence.

transformers fills what a checkpoint lacks with random numbers and says so in a report that nobody reads. Here the
report is read before the weights are: the checkpoint is laid over the architecture without memory (on the meta device),
with all renaming and fusing that transformers knows, and what does not fit is named.
"""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import safe_open
from sentence_transformers.util import load_file_path
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from antiphon import compat
from antiphon.errors import CheckpointError, ModelError, foreign
from antiphon.model.library_messages import hushed

NEEDLESS = re.compile(
    r"(^|\.)(lm_head|embed_out|output_layer|output_projection|score|classifier|cls|pooler|qa_outputs|v_head|value_head)\.|"
    r"(^|\.)(vision\w*|visual|audio\w*|image\w*|multi_modal_projector|mm_projector|mtp\w*)\.|"
    r"(rotary_emb\.inv_freq|inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|_extra_state)$"
)
"""Left over by rule: heads of other uses, towers for other inputs, and tables that newer code computes."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
EXPERT = re.compile(r"^(.*\.experts)\.([^.]+)\.(.+\..+)$")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Account:
    """What of a checkpoint did not find its place in an architecture."""

    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    cut: tuple[str, ...]
    """Tensors of another shape, as words."""

    def sentence(self, source: str) -> str | None:
        """Return what is wrong, naming the first tensor of each kind; None where everything is in its place."""
        parts = [
            f"{what} {names[0]}" + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")
            for what, names in (
                ("no tensor", self.missing),
                ("a tensor that no layer takes,", self.left_over),
                ("a tensor of another shape,", self.cut),
            )
            if names
        ]
        if not parts:
            return None
        return (
            f"The weights in {source} are not those of its config.json: there is {', '.join(parts)}. Nothing was made "
            "up in their place; take a complete copy of the folder, or the config.json that belongs to the weights."
        )


def check_weights(source: str) -> None:
    """Raise a CheckpointError unless a folder or hub id holds every tensor of its architecture, and no other's.

    An adapter's folder is judged by the base that it names, and by `check_adapter` when it stands on that.
    """
    judged = adapter_base(source) or source
    report = account(judged).sentence(judged)
    if report is not None:
        raise CheckpointError(report)


def account(source: str) -> Account:
    """Lay a checkpoint over its architecture and return what does not fit; foreign errors are the caller's to word."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        return Account((), (), ())  # packed tensors have names of their own; the quantiser's loader counts them
    found = _report(source, AutoModel)
    stray = stray_experts(_names(source))
    if stray:
        return Account((), stray, ())
    return Account(
        tuple(sorted(name for name in found["missing_keys"] if not NEEDLESS.search(name))),
        tuple(sorted(name for name in found["unexpected_keys"] if not NEEDLESS.search(name))),
        tuple(
            f"{name} {list(there)} where {list(wanted)} is wanted"
            for name, there, wanted in sorted(found["mismatched_keys"])
        ),
    )


def head_tensors(source: str) -> dict[str, torch.Tensor]:
    """Read the untied vocabulary head of a folder or hub id: weight (V, D) and, in some families, bias (V,).

    Its names differ by family; it is what a causal language model takes of the files and the decoder alone does not.
    Raises CheckpointError where there is none.
    """
    names: set[str] = set()
    if source:
        with foreign(f"The vocabulary head in {source} cannot be read", CheckpointError):
            taken = [set(_report(source, kind)["unexpected_keys"]) for kind in (AutoModel, AutoModelForCausalLM)]
            names = taken[0] - taken[1]
            found = {name.rpartition(".")[2]: _read(source, name) for name in names}
    if not names or "weight" not in found:
        raise CheckpointError(
            f"The untied head was not found in the weights of {source or 'a model that was made in memory'}, so the "
            "model was not saved; keep the folder that it was built from until it is saved."
        )
    return found


def _report(source: str, kind: Any) -> Mapping[str, Any]:
    """Return transformers' report on laying the weights of a folder or hub id over a kind of model.

    A run opens its base several times; files that have not changed since are reported as they were.
    """
    return _laid_over(source, kind, _files(source))


def _files(source: str) -> tuple[tuple[str, int, int, int], ...]:
    """Return what tells the files beside a model's config.json from those that stood there before."""
    config = load_file_path(source, "config.json")
    beside = [] if config is None else sorted(path for path in Path(config).parent.iterdir() if path.is_file())
    return tuple((path.name, (stat := path.stat()).st_ino, stat.st_size, stat.st_mtime_ns) for path in beside)


@lru_cache(maxsize=8)
def _laid_over(source: str, kind: Any, files: object) -> Mapping[str, Any]:
    with hushed(bars=False):  # nothing is read yet, and what is reported is judged here
        _, found = kind.from_pretrained(
            source, device_map="meta", ignore_mismatched_sizes=True, output_loading_info=True, trust_remote_code=False
        )
    report: Mapping[str, Any] = found
    return report


def _read(source: str, name: str) -> torch.Tensor:
    """Read one tensor from the files of a folder or hub id, whatever they are called; KeyError where it is in none."""
    for single in WEIGHTS:
        file = load_file_path(source, _shards(source, single).get(name, single))
        if file is None:
            continue
        if single.endswith(".bin"):
            tensors: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return tensors[name]
        with safe_open(file, framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
            return tensor
    raise KeyError(name)


def _shards(source: str, single: str) -> Mapping[str, str]:
    """Return the file of each tensor by the index of a sharded checkpoint; empty where it has none."""
    index = load_file_path(source, f"{single}.index.json")
    places: dict[str, str] = {}
    if index is not None:
        places = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
    return places


def stray_experts(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tensors of experts whose numbers do not run from 0: fused on loading, they are stacked as they come.

    transformers' pattern for an expert's number takes any word, so a renamed or left-out expert is no missing key.
    """
    experts: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        if found := EXPERT.match(name):
            experts.setdefault((found[1], found[3]), {})[found[2]] = name
    return tuple(
        sorted(
            name
            for numbers in experts.values()
            if any(number.isdigit() for number in numbers)
            for number, name in numbers.items()
            if number not in {str(n) for n in range(len(numbers))}
        )
    )


def _names(source: str) -> set[str]:
    """Return the names of all tensors in the safetensors of a folder or hub id, none where it has none."""
    if shards := _shards(source, WEIGHTS[0]):
        return set(shards)
    file = load_file_path(source, WEIGHTS[0])
    if file is None:
        return set()
    with safe_open(file, framework="pt") as opened:
        return set(opened.keys())


def adapter_base(source: str) -> str | None:
    """Return the base that an adapter's folder names, None for a folder with weights of its own."""
    if load_file_path(source, ADAPTER_CONFIG) is None or load_file_path(source, "config.json") is not None:
        return None
    base = adapter_config(source).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(f"{ADAPTER_CONFIG} in {source} names no base model; add base_model_name_or_path.")
    return str(base)


def adapter_config(adapter: str) -> dict[str, Any]:
    """Return the settings of an adapter's folder or hub id; ModelError where it has none."""
    file = load_file_path(adapter, ADAPTER_CONFIG)
    if file is None:
        raise ModelError(f"{adapter} holds no {ADAPTER_CONFIG}, so it is no adapter; name the folder that peft wrote.")
    try:
        settings: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is no JSON ({error}); take a complete copy of the adapter.") from error
    return settings


def name_base(folder: Path) -> None:
    """Let the adapter in a folder name its base by a path that is right from everywhere, where it names a folder."""
    file = folder / ADAPTER_CONFIG
    settings = json.loads(file.read_text(encoding="utf-8"))
    base = Path(settings["base_model_name_or_path"])
    if base.is_dir():
        file.write_text(json.dumps({**settings, "base_model_name_or_path": str(base.resolve())}, indent=2) + "\n")


def check_adapter(backbone: PreTrainedModel, adapter: str) -> None:
    """Raise a ModelError unless an adapter that was put on a backbone is one for it, tensor by tensor.

    peft fills what an adapter's file lacks with fresh matrices, which change nothing, and passes over what is left.
    """
    wanted = {_bare(name): weight.shape for name, weight in get_peft_model_state_dict(backbone).items()}
    there = {_bare(name): shape for name, shape in adapter_tensors(adapter).items()}
    same = [name for name in wanted if there.get(name) == wanted[name]]
    if len(same) == len(wanted) == len(there):
        return
    missing = sorted(wanted.keys() - there.keys())
    other = sorted(name for name in wanted.keys() & there.keys() if there[name] != wanted[name])
    if missing:
        first = f"it has no tensor {missing[0]}"
    elif other:
        first = f"its tensor {other[0]} is {list(there[other[0]])} where {list(wanted[other[0]])} is wanted"
    else:
        first = f"the model has no place for its tensor {min(there.keys() - wanted.keys())}"
    raise ModelError(
        f"The adapter {adapter} is not one for this model: {first} ({len(same):,} of {len(wanted):,} tensors fit, the "
        f"adapter holds {len(there):,}); name the base that it was trained on."
    )


def check_base(config: PretrainedConfig, adapter: str) -> None:
    """Raise a ModelError where an adapter names another base than the model that it is put on.

    The same base may stand in another folder: names count by their last part, folders by what is in their weights.
    """
    named, own = adapter_config(adapter).get("base_model_name_or_path"), compat.source_of(config)
    if not named or not own or Path(str(named)).name == Path(own).name or _same_weights(str(named), own):
        return
    raise ModelError(
        f"The adapter {adapter} was trained on {named} and the model is {own}; name that base. If it is the same model "
        f"under another name, say so by base_model_name_or_path in the adapter's {ADAPTER_CONFIG}."
    )


def _same_weights(one: str, other: str) -> bool:
    first, second = (Path(folder) / WEIGHTS[0] for folder in (one, other))
    return first.exists() and second.exists() and filecmp.cmp(first, second, shallow=False)


def adapter_tensors(adapter: str) -> Mapping[str, torch.Size]:
    """Return names and shapes of the tensors in an adapter's folder or hub id; ModelError where it holds none."""
    for name in ADAPTER_WEIGHTS:
        file = load_file_path(adapter, name)
        if file is None:
            continue
        if name.endswith(".bin"):
            tensors: dict[str, Any] = torch.load(file, map_location="meta", weights_only=True)
            return {key: value.shape for key, value in tensors.items()}
        with safe_open(file, framework="pt") as opened:
            return {key: torch.Size(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    raise ModelError(f"{adapter} holds no adapter ({' or '.join(ADAPTER_WEIGHTS)}); name the folder that peft wrote.")


def _bare(name: str) -> str:
    """Return a tensor's name without the models that it was wrapped in when it was written."""
    return re.sub(r"^(base_model\.model\.)?((model|transformer|gpt_neox|language_model)\.)*", "", name)
