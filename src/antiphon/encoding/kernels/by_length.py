"""Attention over texts end to end by PyTorch's own call, once for all neighbours of one length: no mask, no filling.

T queries, S keys behind the P of the shared prefix, H heads, K key heads, d head width; G neighbours of L queries and
Y keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F


@torch.library.custom_op("antiphon::attend_by_length", mutates_args=())
def attend_by_length(  # noqa: PLR0913  (an operator's parameters are tensors and plain values)
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
    """Return attention (1, T, H, d) of queries (1, H, T, d) over keys (1, K, P + S, d), as `attend_in_tiles` does.

    An operator of its own, because a compiler would compile layers anew for every batch of other lengths.
    """
    heads, tokens, width = query.shape[1:]
    out = query.new_empty(1, tokens, heads, value.shape[3])
    queried = kept = 0
    for number, queries, keys in neighbours(query_starts, key_starts):
        asked = query[0, :, queried : queried + number * queries].view(heads, number, queries, width).transpose(0, 1)
        keyed, valued = (_of_neighbours(states, kept, number, keys - prefix, prefix) for states in (key, value))
        back = before if before < keys - 1 else -1  # a window that is wider than the text is none
        causal = back < 0 and after == 0 and queries == keys
        found = F.scaled_dot_product_attention(
            asked,
            keyed,
            valued,
            attn_mask=None if causal else _mask(queries, keys, back, after),
            is_causal=causal,
            scale=scaling,
            enable_gqa=heads != key.shape[1],
        )
        out[0, queried : queried + number * queries] = found.transpose(1, 2).flatten(0, 1)
        queried, kept = queried + number * queries, kept + number * (keys - prefix)
    return out


@attend_by_length.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: object) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def neighbours(query_starts: torch.Tensor, key_starts: torch.Tensor) -> Iterator[tuple[int, int, int]]:
    """Yield how many texts beside each other have the same numbers of queries and keys, and these.

    Example:
        >>> list(neighbours(torch.tensor([0, 5, 10, 12]), torch.tensor([0, 8, 16, 21])))
        [(2, 5, 8), (1, 2, 5)]
    """
    sizes, numbers = torch.unique_consecutive(
        torch.stack([query_starts.diff(), key_starts.diff()], dim=1), dim=0, return_counts=True
    )
    for number, (queries, keys) in zip(numbers.tolist(), sizes.tolist(), strict=True):
        yield number, queries, keys


def _of_neighbours(states: torch.Tensor, start: int, number: int, length: int, prefix: int) -> torch.Tensor:
    """Return keys or values (G, K, Y, d) of neighbours, of which the first starts so far behind the prefix."""
    begin = prefix + start
    heads, width = states.shape[1], states.shape[3]
    own = states[0, :, begin : begin + number * length].view(heads, number, length, width).transpose(0, 1)
    return torch.cat([states[:, :, :prefix].expand(number, -1, -1, -1), own], dim=2) if prefix else own


def _mask(queries: int, keys: int, before: int, after: int) -> torch.Tensor | None:
    """Return which keys (L, Y) each of a text's last queries sees, None where all see all."""
    if before < 0 and (after < 0 or after >= queries - 1):
        return None
    ahead = torch.arange(keys) - torch.arange(keys - queries, keys)[:, None]
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if before >= 0:
        seen &= ahead >= -before
    if after >= 0:
        seen &= ahead <= after
    return seen
