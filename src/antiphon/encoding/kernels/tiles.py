"""Attention over texts end to end on a processor with 16-bit products: in its tiles (AMX), or in vectors (AVX-512).

T queries, S keys behind the P of the shared prefix, N texts, H heads, K key heads, d head width.
"""

from __future__ import annotations

import ctypes

import torch

from antiphon.encoding.kernels.native.library import TILES, VECTORS, NativeSource, places
from antiphon.errors import ModelError

SOURCE = NativeSource("attention", VECTORS, faster=TILES)


@torch.library.custom_op("antiphon::attend_in_tiles", mutates_args=())
def attend_in_tiles(  # noqa: PLR0913  (an operator's parameters are tensors and plain values)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_starts: torch.Tensor,
    key_starts: torch.Tensor,
    prefix: int,
    before: int,
    after: int,
    scaling: float,
) -> torch.Tensor:
    """Return attention (1, T, H, d) of queries (1, H, T, d) over keys (1, K, P + S, d), all in bfloat16.

    Starts are (N + 1,) int32, those of keys with the prefix before each text. A text's last query stands at its last
    key and sees `before` keys before its own and `after` behind it, -1 is all. Raises ModelError for another dtype.
    """
    heads, tokens, width = query.shape[1:]
    if {query.dtype, key.dtype, value.dtype} != {torch.bfloat16} or value.shape[3] != width or width % 2:
        raise ModelError(f"products of pairs take bfloat16 and even heads of one width, not {query.dtype}, {width}")
    query, key, value = (_in_pairs(states) for states in (query, key, value))
    out = query.new_empty(1, tokens, heads, width)
    steps = [step for states in (query, key, value) for step in (states.stride(2), states.stride(1))]
    full = SOURCE.library.antiphon_attend(
        *places(query, key, value, out),
        (ctypes.c_int64 * 6)(*steps),
        *places(query_starts, key_starts),
        *map(ctypes.c_int64, (len(query_starts) - 1, prefix, heads, key.shape[1], width, before, after)),
        ctypes.c_float(scaling),
        ctypes.c_int(torch.get_num_threads()),
    )
    if full:
        raise MemoryError("no memory is left for a text's keys and values")
    return out


@attend_in_tiles.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: object) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])


def _in_pairs(states: torch.Tensor) -> torch.Tensor:
    """Return states whose last numbers lie side by side, each token and head at an even place."""
    return states if states.stride(3) == 1 and not (states.stride(1) | states.stride(2)) % 2 else states.contiguous()
