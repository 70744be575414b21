"""Attention over texts laid end to end in one row, by a kernel for texts of any lengths: no mask at all.

PyTorch's flash kernel on a GPU and our own on a processor with 16-bit products (tiles.py), both in 16 bits; PyTorch's
call length by length on other processors and in float32 (by_length.py). N texts, T tokens of the row, P tokens of the
shared prefix, S = N x P + T keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch.nn.attention.varlen import varlen_attn

from antiphon.encoding.kernels import tiles
from antiphon.encoding.kernels.by_length import attend_by_length


@dataclass(frozen=True)
class Spans:
    """Where each text's queries and keys lie in a row."""

    queries: torch.Tensor
    """Where texts begin and end, (N + 1,) int32."""
    keys: torch.Tensor
    """The same of their keys, the prefix before each, (N + 1,) int32."""
    longest_query: int
    longest_key: int
    prefix: int = 0
    """P."""
    kernel: str = "flash"
    """Which kernel takes them, see `kernel_for`."""
    order: torch.Tensor | None = None
    """Which of prefix and row each key is, (S,); None without a prefix, and where the kernel finds that by itself."""

    @classmethod
    def of(cls, lengths: Sequence[int], prefix: int, device: torch.device, dtype: torch.dtype) -> Spans:
        """Return the spans of texts with these numbers of tokens, prefix not counted, whose states have a dtype."""
        starts = [0, *accumulate(lengths)]
        order, kernel = None, kernel_for(device, dtype)
        if prefix and kernel == "flash":
            own = (torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=False))
            order = torch.cat([part for each in own for part in (torch.arange(prefix), each + prefix)]).to(device)
        return cls(
            _offsets(lengths, device),
            _offsets([prefix + length for length in lengths], device),
            max(lengths),
            prefix + max(lengths),
            prefix,
            kernel,
            order,
        )

    def last(self) -> Spans:
        """Return the spans where only the last token of each text asks."""
        return replace(
            self, queries=torch.arange(len(self.queries), dtype=torch.int32).to(self.queries), longest_query=1
        )


def kernel_for(device: torch.device, dtype: torch.dtype) -> str:
    """Return which kernel takes texts end to end: "flash" on a GPU, "tiles" or "lengths" on a processor."""
    if device.type != "cpu":
        return "flash"
    return "tiles" if dtype == torch.bfloat16 and tiles.SOURCE.missing() is None else "lengths"


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Spans,
    reach: tuple[int, int],
    scaling: float | None,
) -> torch.Tensor:
    """Return attention (1, T, H, d) of queries (1, H, T, d) over keys (1, K, S, d), or (1, K, P + T, d) on a CPU.

    `reach` is how many tokens before and after a query are seen, -1 is all; a text's last query stands at its last key.
    """
    if spans.kernel != "flash":
        scale = float(query.shape[3] ** -0.5) if scaling is None else scaling
        kernel = tiles.attend_in_tiles if spans.kernel == "tiles" else attend_by_length
        found: torch.Tensor = kernel(query, key, value, spans.queries, spans.keys, spans.prefix, *reach, scale)
        return found
    out = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        spans.queries,
        spans.keys,
        spans.longest_query,
        spans.longest_key,
        scale=scaling,
        window_size=reach,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, torch.Tensor)
    return out[None]


def _offsets(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device)
