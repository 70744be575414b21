"""Every private or renamed name of the libraries below that is touched, under a name of ours.

The public way stands first where there is one, the private one behind it. A release that takes one of them away breaks
one function here and its row in tests/test_compat.py, which says what would be lost. Supported are transformers 5.18 to
5.24 and what keeps their names.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import import_from_string, load_file_path
from tokenizers import Tokenizer
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from antiphon.errors import ConfigError, ModelError

CACHE_ARGUMENTS = ("cache", "past_key_values", "layer_past", "cache_params")
"""What a decoder calls its keys and values: the first since transformers 5.24, the second before, others by family."""
LORA_PAIR = "transformers 5.23 with peft 0.21"
"""A pair of releases with which LoRA was run."""
RUN_RELEASES = "transformers 5.18 to 5.24 and torch 2.12 to 2.13"
"""Releases with which the tests of everything that is faster were run."""


def releases() -> str:
    """Return which releases were run and which are installed, and what to do where they are others."""
    return (
        f"{RUN_RELEASES} were run, transformers {transformers.__version__} and torch {version('torch')} are installed; "
        "install releases that were run, or report it"
    )


# --- transformers: decoders


def cache_argument(model: nn.Module) -> str:
    """Return the name under which a decoder's forward takes its cache; ModelError where it takes none."""
    taken = inspect.signature(model.forward).parameters
    for name in CACHE_ARGUMENTS:
        if name in taken:
            return name
    raise ModelError(f"{type(model).__name__} takes no cache of keys and values")


def cache_given(arguments: Mapping[str, Any], kind: type) -> str:
    """Return the name of the argument that holds a cache of a kind: what the model itself calls it in its layers."""
    return next(name for name, value in arguments.items() if isinstance(value, kind))


def attention_of(config: PretrainedConfig) -> str:
    """Return the name of the attention implementation that a configuration asks for."""
    return str(getattr(config, "_attn_implementation", None) or "unknown")


def set_attention(config: PretrainedConfig, name: str) -> None:
    """Let a configuration ask for an attention implementation; `set_attn_implementation` would ask the hub for it."""
    config._attn_implementation = name


def source_of(config: PretrainedConfig) -> str:
    """Return the folder or hub id that a configuration was read from, "" where it was made."""
    return str(getattr(config, "name_or_path", None) or "")


def forget_quantisation(model: Any) -> None:
    """Let a model whose weights are unpacked be saved as one that never was quantised: transformers refuses else."""
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.hf_quantizer = None


@contextmanager
def gguf_bar_switched() -> Iterator[None]:
    """Let the bar over a GGUF file's tensors obey the switch of transformers' bars: it is tqdm's own, with none."""
    module: Any = modeling_gguf_pytorch_utils
    bar = module.tqdm
    module.tqdm = transformers_logging.tqdm
    try:
        yield
    finally:
        module.tqdm = bar


def revision_of(config: PretrainedConfig) -> str | None:
    """Return the commit of the hub repository that a configuration was read from, None where there is none."""
    revision: str | None = getattr(config, "_commit_hash", None)
    return revision


def copied_module(module: nn.Module, children: Mapping[str, nn.Module | None], **attributes: Any) -> nn.Module:
    """Return a module over the same parameters and buffers with other children and attributes, in evaluation mode.

    A copy shares the dictionaries of what it was copied from, so they are replaced and not written to.
    """
    shown = copy.copy(module)
    shown.__dict__["_modules"] = dict(children)
    shown.__dict__["training"] = False
    shown.__dict__.update(attributes)
    return shown


def with_parameters(module: nn.Module, parameters: Mapping[str, torch.Tensor], **attributes: Any) -> nn.Module:
    """Return a module with plain tensors for some of its own parameters; the module itself keeps those it has."""
    own = {**module._parameters, **parameters}
    return copied_module(module, children_of(module), _parameters=own, **attributes)


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the children of a module by name; `named_children` passes over those that are None or stand twice."""
    return dict(module._modules)


def run_compiled(module: nn.Module, when: Callable[[], bool], **settings: Any) -> None:
    """Compile a module's calls, its hooks with them, for when `when()` says so; copies of it are not compiled."""
    module.compile(**settings)
    compiled: Callable[..., Any] = module._compiled_call_impl  # type: ignore[assignment]
    module._compiled_call_impl = lambda *given, **named: (compiled if when() else module._call_impl)(*given, **named)


def run_plainly(module: nn.Module) -> None:
    """Have a module's calls be what they were before it was compiled."""
    module._compiled_call_impl = None


def version_of(tensor: torch.Tensor) -> int:
    """Return a number that rises whenever a tensor is written to in place; 0 for one of inference mode."""
    return 0 if tensor.is_inference() else int(tensor._version)


# --- transformers: tokenizers


def set_backend(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> None:
    """Let a fast tokenizer stand on another backend: `backend_tokenizer` can be read only."""
    tokenizer._tokenizer = backend


# --- transformers and peft: adapters


def lora_unavailable() -> str | None:
    """Return why LoRA cannot be attached with the installed releases, as a sentence; None where nothing is known.

    transformers states the oldest peft that it takes and looks at it when an adapter is attached, which in a run of
    several stages would be after the first were trained.
    """
    from transformers.integrations import peft as integration

    wanted = getattr(integration, "MIN_PEFT_VERSION", None)
    try:
        installed = version("peft")
    except PackageNotFoundError:
        return f"LoRA needs peft, which is not installed; install {LORA_PAIR}."
    if wanted is None or Version(installed) >= Version(wanted):
        return None
    return (
        f"LoRA cannot be attached: transformers {transformers.__version__} needs peft {wanted} or newer and peft "
        f"{installed} is installed; install a newer peft if there is one, or {LORA_PAIR}."
    )


def check_lora() -> None:
    """Raise a ConfigError where LoRA cannot be attached with the installed releases."""
    reason = lora_unavailable()
    if reason is not None:
        raise ConfigError(reason)


def adapters_acting(module: nn.Module) -> tuple[str, ...]:
    """Return the adapters of a layer that act, none where it has none or they are switched off."""
    if getattr(module, "_disable_adapters", True):  # peft's layers and wrappers of tables share no public property
        return ()
    return tuple(getattr(module, "_active_adapter", None) or ())


def forget_adapters(backbone: PreTrainedModel) -> None:
    """Remove what transformers remembers of adapters that were merged, or it would save adapters only."""
    if getattr(backbone, "_hf_peft_config_loaded", False):
        backbone._hf_peft_config_loaded = False
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config


# --- sentence-transformers


def load_with_modules(
    source: str, classes: Mapping[str, type[nn.Module]], *, device: str | None, model_kwargs: dict[str, Any]
) -> SentenceTransformer:
    """Load a folder or hub id, its modules' names meaning these classes: no code of the folder's is run.

    Stock loading refuses outside classes without `trust_remote_code=True`, which would run what the folder brings.
    """
    stock = getattr(SentenceTransformer, "_load_with_module_classes", None)
    if stock is None:
        return assembled(source, classes, device=device, model_kwargs=model_kwargs)
    model: SentenceTransformer = stock(
        source, classes, device=device, model_kwargs=model_kwargs, trust_remote_code=False
    )
    return model


def assembled(
    source: str, classes: Mapping[str, type[nn.Module]], *, device: str | None, model_kwargs: dict[str, Any]
) -> SentenceTransformer:
    """Load what `load_with_modules` loads with public names only: each module by its own `load`, then the settings.

    A model card that lies in the folder is not read.
    """
    listed = json.loads(Path(load_file_path(source, "modules.json")).read_text(encoding="utf-8"))
    modules: dict[str, Any] = {}
    for entry in listed:
        kind: Any = classes.get(entry["type"]) or import_from_string(entry["type"])
        modules[entry["name"]] = kind.load(
            source, subfolder=entry["path"], trust_remote_code=False, model_kwargs=dict(model_kwargs)
        )
    file = load_file_path(source, "config_sentence_transformers.json")
    stored = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
    names = ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
    settings = {name: stored[name] for name in names if stored.get(name) is not None}
    model = SentenceTransformer(modules=OrderedDict(modules), device=device, **settings)
    model.module_kwargs = {entry["name"]: entry.get("kwargs", []) for entry in listed}
    return model


def hand_on(module: Any, keywords: Iterable[str]) -> None:
    """Let a module take these keywords of the model's call: sentence-transformers hands on those that it names."""
    module.forward_kwargs = {*module.forward_kwargs, *keywords}


def rows_of_column(column: Mapping[str, Any], begin: int, end: int) -> dict[str, Any]:
    """Return some rows of a column's features, as the gradient cache cuts them."""
    from sentence_transformers.base.losses.gradcache import _create_minibatch

    rows: dict[str, Any] = _create_minibatch(column, begin, end)
    return rows


def load_checkpoint(trainer: Any, folder: str) -> None:
    """Put a checkpoint's weights into the model that is trained; the trainer's own end of a run logs its errors."""
    trainer._load_from_checkpoint(folder)


def checkpointing_arguments() -> dict[str, Any]:
    """Return the trainer's arguments that recompute activations; older releases call them otherwise."""
    from transformers import TrainingArguments

    known = inspect.signature(TrainingArguments).parameters
    name = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known)
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


# --- torch: products


def multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a device has products of a dtype of 16 bits: a GPU, or a processor that oneDNN knows for it."""
    if device.type != "cpu":
        return True
    known = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    asked = getattr(torch.ops.mkldnn, known.get(dtype, ""), None)
    return asked is None or bool(asked())


def prepacked_weight(weight_OI: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return the weights of a linear layer in oneDNN's own layout for products of so many tokens."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI, tokens)
    return packed


def prepacked_product(states: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the products of states (..., I) with weights that `prepacked_weight` laid out, (..., O)."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, packed, bias, "none", [], "")
    return product


def scaled_product(
    a_MI: torch.Tensor, b_IO: torch.Tensor, scale_M1: torch.Tensor, scale_1O: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return the products (M, O) of 8-bit floats, each row and column with a scale of its own."""
    product: torch.Tensor = torch._scaled_mm(a_MI, b_IO, scale_M1, scale_1O, out_dtype=dtype)
    return product
