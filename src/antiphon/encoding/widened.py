"""A second view of a model: the same weights, computed with in float32, one small module at a time.

It is what vectors in 16 bits are measured by, so nothing of the Encoder's runs in it: it is embedded with by
sentence-transformers' own `encode`. No copy of all weights is ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from antiphon import compat

_BYTES = 4
"""Of a float32."""


def widened(model: SentenceTransformer) -> SentenceTransformer:
    """Return a model over the same weights that computes in float32; the model itself where it does so already.

    Example:
        >>> import antiphon
        >>> from antiphon.encoding.widened import widened
        >>> model = antiphon.build("nano", dtype="bfloat16")
        >>> widened(model).encode("a text").dtype
        dtype('float32')
    """
    if model.dtype in (torch.float32, torch.float64):
        return model
    shown: SentenceTransformer = _shown(model, {})
    return shown


def in_float32(module: nn.Module) -> Any:
    """Return a module over the same children with its own parameters in float32, which it then holds."""
    return compat.with_parameters(module, _wide(module))


def is_narrow(module: nn.Module) -> bool:
    """Return whether a module has parameters of its own that float32 would widen."""
    return any(one.is_floating_point() and one.itemsize < _BYTES for one in module.parameters(recurse=False))


def _shown(module: nn.Module, seen: dict[int, nn.Module]) -> Any:
    """Return the view of a module and of all in it; one that stands twice has one view."""
    if id(module) not in seen:
        children = compat.children_of(module)
        shown = {name: None if child is None else _shown(child, seen) for name, child in children.items()}
        own: dict[str, Any] = {}
        if hasattr(module, "cast_input_dtype_enabled"):  # or an adapter of peft's would narrow what it is given
            own["cast_input_dtype_enabled"] = False
        if is_narrow(module):
            run: Callable[..., Any] = looked_up if isinstance(module, nn.Embedding) else _run
            own["forward"] = partial(run, compat.copied_module(module, shown))
        seen[id(module)] = compat.copied_module(module, shown, **own)
    return seen[id(module)]


def _run(module: nn.Module, *given: Any, **named: Any) -> Any:
    """Run a module with its own parameters in float32, for this call only."""
    return in_float32(module).forward(*given, **named)


def looked_up(table: nn.Embedding, ids: torch.Tensor, *given: Any) -> Any:
    """Look ids up in the rows of a table that they name, which alone are held in float32, for this call only."""
    named, places = torch.unique(ids, return_inverse=True)
    rows = {"weight": table.weight[named].float()}
    return compat.with_parameters(table, rows, padding_idx=None).forward(places, *given)


def _wide(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().float()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.is_floating_point()
    }
