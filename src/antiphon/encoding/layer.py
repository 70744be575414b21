"""A layer of the view of a decoder: it reuses a prefix and skips what nobody pools.

R rows, W their width, D hidden width, K positions of a row that are kept, P tokens of the shared prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from antiphon import compat
from antiphon.encoding.kernels.varlen import Spans

Keys = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (1, heads, P, head width)."""


@dataclass
class ForwardPass:
    """What one forward pass brings along; it stands where transformers has its cache."""

    prefix: Sequence[Keys] = ()
    """By layer; empty without a prefix."""
    kept_RK: torch.Tensor | None = None
    """Positions at which the last layer's states are wanted; None is all."""
    recorded: list[Keys] | None = None
    """Filled with every layer's keys and values, where it is a list."""
    spans: Spans | None = None
    """Where the texts of one long row lie, for the calls that take no mask."""

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
    order: torch.Tensor | None = None
    """Which of prefix and row each key is; None where all rows see the prefix before their own."""

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
            if self.order is not None:
                keys, values = keys.index_select(2, self.order), values.index_select(2, self.order)
        if self.stop:
            raise _Kept((keys, values))
        return keys, values


class Layer(nn.Module):
    """One layer of the view."""

    def __init__(
        self,
        layer: nn.Module,
        number: int,
        *,
        last: bool,
        reach: tuple[int, int],
        run: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.number = number
        self.last = last
        self.reach = reach
        """How many tokens before and after itself a token sees, -1 is all."""
        self._run = layer if run is None else run

    def forward(self, hidden_RWD: torch.Tensor, **given: Any) -> Any:
        """Return the layer's states (R, W, D), or (R, K, D) at the kept positions of the last layer.

        One of the arguments is the ForwardPass, under the name that the family has for its cache.
        """
        cache = compat.cache_given(given, ForwardPass)
        run: ForwardPass = given.pop(cache)
        prefix = run.prefix[self.number] if run.prefix else None
        recorded, spans = run.recorded, run.spans
        if spans is not None:
            given = {**given, "spans": spans, "reach": self.reach}
        order = None if spans is None else spans.order
        if self.last and run.kept_RK is not None:
            return self._pruned(hidden_RWD, _LayerKeys(prefix, order=order), run.kept_RK, cache, given)
        keys = None if prefix is None and recorded is None else _LayerKeys(prefix, recorded, order=order)
        # a size of 1 and recorded keys would each be compiled anew: they run as they are
        general = recorded is None and hidden_RWD.shape[1] > 1 and (len(hidden_RWD) > 1 or spans is not None)
        return (self._run if general else self.layer)(hidden_RWD, **{cache: keys}, **given)

    def _pruned(
        self, hidden_RWD: torch.Tensor, before: _LayerKeys, kept_RK: torch.Tensor, cache: str, given: dict[str, Any]
    ) -> Any:
        """Run the layer up to its keys and values, then again from its start at the kept positions only."""
        try:
            self.layer(hidden_RWD, **{cache: replace(before, stop=True)}, **given)
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
        if given.get("spans") is not None:
            given["spans"] = given["spans"].last()
        return self.layer(_at(hidden_RWD, kept_RK), **{cache: _LayerKeys(replayed=keys)}, **given)


def _at(states: torch.Tensor, kept_RK: torch.Tensor) -> torch.Tensor:
    rows = states.expand(len(kept_RK), -1, -1)
    return rows.gather(1, kept_RK[:, :, None].expand(-1, -1, rows.shape[2]))
