"""A second view of a decoder: the same weights, layers that reuse a prefix and skip what nobody pools.

The model's own modules stay as they are, so `model.encode` and training go on beside it. R rows, W their width,
D hidden width, K positions of a row that are kept.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from antiphon import compat
from antiphon.encoding.kernels import attention
from antiphon.encoding.kernels.filled_up import KEYS, in_blocks
from antiphon.encoding.kernels.gated import GatedLayer, is_gated
from antiphon.encoding.kernels.linear import LINEARS
from antiphon.encoding.kernels.varlen import Spans
from antiphon.encoding.layer import ForwardPass, Layer
from antiphon.encoding.masks import Attention, moved
from antiphon.encoding.widened import in_float32, is_narrow, looked_up
from antiphon.model.compiling import compiled, keep_compiled


@dataclass(frozen=True)
class ExecutionMode:
    """How the layers of a view run."""

    call: str = "sdpa"
    """The name of the attention call."""
    compiled: bool = False
    linear: str = "plain"
    """The name of the linear layers; "plain" are the model's own."""
    wide: bool = False
    """Whether layers of 16 bits compute in float32, which holds their weights again, twice as wide."""


PLAIN = ExecutionMode()


@dataclass
class Decoder:
    """The view, and what its masks have to say."""

    model: PreTrainedModel
    attention: Attention
    execution: ExecutionMode

    @classmethod
    def of(cls, model: PreTrainedModel, execution: ExecutionMode = PLAIN) -> Decoder:
        """Return a view of a model that has `layers`, sharing its weights, whose layers run as `execution` says."""
        attention.register()
        if execution.compiled:
            keep_compiled()
            execution = replace(execution, call=attention.FUSED.get(execution.call, execution.call))
        shown = _View(execution).of(model)
        config = shown.config
        kinds = getattr(config, "layer_types", None) or []
        sees = Attention.of(config)
        last = config.num_hidden_layers - 1
        layers = nn.ModuleList(
            Layer(
                layer,
                number,
                last=number == last,
                reach=sees.reach(sliding=not kinds or kinds[number] == "sliding_attention"),
                run=compiled(layer) if execution.compiled else None,
            )
            for number, layer in enumerate(shown.layers)
        )
        shown.add_module("layers", layers.eval())
        return cls(shown, sees, execution)

    @property
    def causal(self) -> bool:
        """Whether a later token never changes an earlier state."""
        return self.attention.causal

    @property
    def flat(self) -> bool:
        """Whether texts are laid end to end in one row."""
        return self.execution.call in attention.FLAT

    @property
    def dtype(self) -> torch.dtype:
        """What states are computed in."""
        return torch.float32 if self.execution.wide else self.model.dtype

    def __call__(
        self, ids_RW: torch.Tensor, text_RW: torch.Tensor, position_RW: torch.Tensor, run: ForwardPass
    ) -> torch.Tensor:
        """Return the last hidden states (R, W, D), or (R, K, D) where `run` keeps some positions.

        What comes in is on the CPU, the states are on the model's device.
        """
        prefix = run.prefix[0][0].shape[2] if run.prefix else 0
        device = self.model.device
        mask = None
        if self.flat:
            lengths = torch.unique_consecutive(text_RW[0], return_counts=True)[1].tolist()
            run = replace(run, spans=Spans.of(lengths, prefix, device, self.dtype))
        else:
            mask = self._masks(text_RW, position_RW, prefix, run.kept_RK is not None)
        states: torch.Tensor = self.model(
            input_ids=moved(ids_RW, device),
            attention_mask=mask,
            position_ids=moved(position_RW, device),
            use_cache=False,
            **{compat.cache_argument(self.model): run},
        ).last_hidden_state
        return states

    def _masks(self, text_RW: torch.Tensor, position_RW: torch.Tensor, prefix: int, pruned: bool) -> Any:
        """Return the masks of tables on the CPU, none where one text is alone."""
        alone = len(text_RW) == 1 and not prefix and not pruned and bool((text_RW == 0).all())
        dtype, device = self.dtype, self.model.device
        blocks = self.execution.call == "sdpa" and in_blocks(device, dtype)
        # both add it to their scores in every layer, so it is made what they are once
        added = dtype if blocks or self.execution.call.startswith("matmul") else None
        return self.attention.masks(
            text_RW, position_RW, prefix=prefix, alone=alone, added=added, multiple=KEYS if blocks else 1, device=device
        )


class _View:
    """Copies a tree of modules over the same parameters and buffers, with a configuration of its own."""

    def __init__(self, execution: ExecutionMode) -> None:
        self.execution = execution
        self._seen: dict[int, nn.Module] = {}
        self._configs: dict[int, PretrainedConfig] = {}
        self._gated: dict[type[nn.Module], bool] = {}

    def of(self, module: nn.Module) -> Any:
        """Return the copy of a module."""
        if id(module) not in self._seen:
            other = self._other(module) if type(module) is nn.Linear else None
            if other is None:
                self._copy(module)
            else:
                self._seen[id(module)] = other
        return self._seen[id(module)]

    def _other(self, linear: nn.Linear) -> nn.Module | None:
        """Return the linear layer that takes the place of the model's own, None where none does."""
        way = LINEARS.get(self.execution.linear)
        return None if way is None else way(in_float32(linear) if self.execution.wide else linear)

    def _copy(self, module: nn.Module) -> None:
        own: dict[str, Any] = {}
        config = module.__dict__.get("config")
        if isinstance(config, PretrainedConfig):
            if id(config) not in self._configs:
                self._configs[id(config)] = copy.copy(config)
                compat.set_attention(self._configs[id(config)], attention.PREFIX + self.execution.call)
            own["config"] = self._configs[id(config)]
        children = compat.children_of(module)
        shown = {name: None if child is None else self.of(child) for name, child in children.items()}
        if not self.execution.wide and self._is_gated(module):
            self._seen[id(module)] = GatedLayer(shown).eval()
            return
        wide = module
        if self.execution.wide and is_narrow(module):
            if isinstance(module, nn.Embedding):
                own["forward"] = partial(looked_up, module)
            else:
                wide = in_float32(module)
        self._seen[id(module)] = compat.copied_module(wide, shown, **own)

    def _is_gated(self, module: nn.Module) -> bool:
        """Return whether the layers of a module's class are gated ones, by the first of them."""
        if type(module) not in self._gated:
            self._gated[type(module)] = is_gated(module)
        return self._gated[type(module)]
