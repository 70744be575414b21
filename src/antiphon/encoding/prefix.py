"""The prefix cache: keys and values of what stands before every text, computed once and kept for the next call.

P tokens of a prefix, D hidden width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from antiphon.encoding.decoder import Decoder
from antiphon.encoding.layer import ForwardPass, Keys

KEPT = 16
"""Prefixes that are kept; the one that was used longest ago goes."""


@dataclass(frozen=True)
class Prefix:
    """A prefix that was run."""

    ids: tuple[int, ...]
    keys: Sequence[Keys]
    states_PD: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


class PrefixCache:
    """A prefix cache: the prefixes of one state of a model's weights."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, decoder: Decoder, ids: Sequence[int]) -> Prefix:
        """Return a prefix, run now if it is not there."""
        wanted = tuple(ids)
        if wanted not in self._kept:
            self._kept[wanted] = _run(decoder, wanted)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(wanted)
        return self._kept[wanted]


def _run(decoder: Decoder, ids: tuple[int, ...]) -> Prefix:
    ids_1P = torch.tensor([ids])
    recorded: list[Keys] = []
    states_1PD = decoder(
        ids_1P,
        torch.zeros_like(ids_1P),
        torch.arange(len(ids))[None],
        ForwardPass(recorded=recorded),
    )
    return Prefix(ids, recorded, states_1PD[0])
