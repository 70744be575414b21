"""A second view of a decoder: the same weights, layers that reuse a prefix and skip what nobody pools.

The model's own modules stay as they are, so `model.encode` and training go on beside it. R rows, W their width,
D hidden width, K positions of a row that are kept, P tokens of the shared prefix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from antiphon.encoding import attention

Keys = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (1, heads, P, head width)."""


@dataclass
class Pass:
    """What one forward pass brings along; it stands where transformers has its cache."""

    prefix: Sequence[Keys] = ()
    """By layer; empty without a prefix."""
    kept_RK: torch.Tensor | None = None
    """Positions at which the last layer's states are wanted; None is all."""
    recorded: list[Keys] | None = None
    """Filled with every layer's keys and values, where it is a list."""

    def get_seq_length(self, *args: Any) -> int:
        """Return 0: positions are always given."""
        return 0


class _Kept(Exception):
    """The keys and values that a layer was to be run for."""

    def __init__(self, keys: Keys) -> None:
        super().__init__()
        self.keys = keys


@dataclass
class _LayerKeys:
    """A layer's cache: the prefix before its own keys and values."""

    prefix: Keys | None = None
    recorded: list[Keys] | None = None
    stop: bool = False
    replayed: Keys | None = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Keys:
        """Return what the layer attends to."""
        if self.replayed is not None:
            return self.replayed
        if self.recorded is not None:
            self.recorded.append((keys, values))
        if self.prefix is not None:
            rows = len(keys)
            keys, values = (
                torch.cat([before.expand(rows, -1, -1, -1), own], dim=2)
                for before, own in zip(self.prefix, (keys, values), strict=True)
            )
        if self.stop:
            raise _Kept((keys, values))
        return keys, values


class Layer(nn.Module):
    """One layer of the view."""

    def __init__(self, layer: nn.Module, number: int, *, last: bool, run: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.number = number
        self.last = last
        self._run = layer if run is None else run

    def forward(self, hidden_RWD: torch.Tensor, *, past_key_values: Pass, **given: Any) -> Any:
        """Return the layer's states (R, W, D), or (R, K, D) at the kept positions of the last layer."""
        prefix = past_key_values.prefix[self.number] if past_key_values.prefix else None
        recorded = past_key_values.recorded
        if self.last and past_key_values.kept_RK is not None:
            return self._pruned(hidden_RWD, prefix, past_key_values.kept_RK, given)
        keys = None if prefix is None and recorded is None else _LayerKeys(prefix, recorded)
        # a size of 1 and recorded keys would each be compiled anew: they run as they are
        general = recorded is None and min(hidden_RWD.shape[:2]) > 1
        return (self._run if general else self.layer)(hidden_RWD, past_key_values=keys, **given)

    def _pruned(
        self, hidden_RWD: torch.Tensor, prefix: Keys | None, kept_RK: torch.Tensor, given: dict[str, Any]
    ) -> Any:
        """Run the layer up to its keys and values, then again from its start at the kept positions only."""
        try:
            self.layer(hidden_RWD, past_key_values=_LayerKeys(prefix, stop=True), **given)
        except _Kept as kept:
            keys = kept.keys
        given = dict(given)
        if given.get("position_embeddings") is not None:
            given["position_embeddings"] = tuple(_at(table, kept_RK) for table in given["position_embeddings"])
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"].gather(1, kept_RK)
        mask = given.get("attention_mask")
        if mask is not None:
            given["attention_mask"] = mask.gather(2, kept_RK[:, None, :, None].expand(-1, 1, -1, mask.shape[3]))
        return self.layer(_at(hidden_RWD, kept_RK), past_key_values=_LayerKeys(replayed=keys), **given)


def _at(states: torch.Tensor, kept_RK: torch.Tensor) -> torch.Tensor:
    rows = states.expand(len(kept_RK), -1, -1)
    return rows.gather(1, kept_RK[:, :, None].expand(-1, -1, rows.shape[2]))


@dataclass
class Decoder:
    """The view, and what its masks have to say."""

    model: PreTrainedModel
    causal: bool
    window: int | None
    """The width of sliding-window layers; None where there are none."""
    by_kind: bool
    """Whether the model takes one mask for every kind of layer."""
    call: str
    """The name of the attention call."""

    @classmethod
    def of(cls, model: PreTrainedModel, *, call: str = "sdpa", compiled: bool = False) -> Decoder:
        """Return a view of a model that has `layers`, sharing its weights; `call` names its attention call."""
        attention.register()
        call = attention.FUSED.get(call, call) if compiled else call
        shown = _view(model, call, {}, {})
        config = shown.config
        last = config.num_hidden_layers - 1
        shown._modules["layers"] = nn.ModuleList(
            Layer(layer, number, last=number == last, run=_compiled(layer) if compiled else None)
            for number, layer in enumerate(shown.layers)
        ).eval()
        kinds = getattr(config, "layer_types", None) or []
        slides = "sliding_attention" in kinds or not kinds
        window = getattr(config, "sliding_window", None) if slides else None
        if not kinds and getattr(config, "use_sliding_window", True) is False:
            window = None
        return cls(shown, is_causal(config), window, bool(kinds), call)

    def __call__(
        self, ids_RW: torch.Tensor, text_RW: torch.Tensor, position_RW: torch.Tensor, run: Pass
    ) -> torch.Tensor:
        """Return the last hidden states (R, W, D), or (R, K, D) where `run` keeps some positions."""
        prefix = run.prefix[0][0].shape[2] if run.prefix else 0
        states: torch.Tensor = self.model(
            input_ids=ids_RW,
            attention_mask=self._masks(text_RW, position_RW, prefix, pruned=run.kept_RK is not None),
            position_ids=position_RW,
            past_key_values=run,
            use_cache=False,
        ).last_hidden_state
        return states

    def _masks(self, text_RW: torch.Tensor, position_RW: torch.Tensor, prefix: int, *, pruned: bool) -> Any:
        """Return the mask, one for every kind of layer where the model takes a table; None for one text alone."""
        alone = len(text_RW) == 1 and not prefix and not pruned and bool((text_RW == 0).all())
        span = text_RW.shape[1] + prefix

        def mask(window: int | None) -> torch.Tensor | None:
            window = None if window is None or span <= window else window
            if alone and window is None:
                return None
            seen = attention.packed_mask(
                text_RW, position_RW, prefix=prefix, causal=self.causal, window=window, inclusive=_inclusive(self)
            )
            # every layer adds it to its scores, so it is made what they are once
            return attention.additive(seen, self.model.dtype) if self.call.startswith("matmul") else seen

        if self.by_kind:
            return {"full_attention": mask(None), "sliding_attention": mask(self.window)}
        return mask(self.window)


def _inclusive(decoder: Decoder) -> bool:
    """Return whether a bidirectional window counts its last token: transformers does, Gemma's own switch does not."""
    return getattr(decoder.model.config, "is_causal", True) is False


def _compiled(layer: nn.Module) -> Callable[..., Any]:
    """Return a layer compiled for any number of rows, width and prefix; layers alike share what is built.

    Models of one process share the limit too, so it is above PyTorch's 8.
    """
    run: Callable[..., Any] = torch.compile(layer, dynamic=True, recompile_limit=attention.RECOMPILED)  # type: ignore[call-overload]
    return run


def is_causal(config: PretrainedConfig) -> bool:
    """Return whether a later token never changes an earlier state."""
    return getattr(config, "is_causal", True) is not False and not getattr(config, "use_bidirectional_attention", False)


def _view(module: nn.Module, call: str, seen: dict[int, nn.Module], configs: dict[int, PretrainedConfig]) -> Any:
    """Return a copy of a tree of modules over the same parameters and buffers, with a configuration of its own."""
    if id(module) in seen:
        return seen[id(module)]
    shown = copy.copy(module)
    seen[id(module)] = shown
    config = module.__dict__.get("config")
    if isinstance(config, PretrainedConfig):
        if id(config) not in configs:
            configs[id(config)] = copy.copy(config)
            configs[id(config)]._attn_implementation = attention.PREFIX + call
        shown.__dict__["config"] = configs[id(config)]
    shown.__dict__["_modules"] = {
        name: None if child is None else _view(child, call, seen, configs) for name, child in module._modules.items()
    }
    shown.__dict__["training"] = False
    return shown
