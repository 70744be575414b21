"""How many tokens a forward pass had best have on this device, measured briefly. R rows, W their width."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from antiphon.encoding.decoder import Decoder
from antiphon.encoding.layer import ForwardPass

BUDGETS = (2048, 4096, 8192, 16384, 32768, 65536)
"""Budgets that are tried, in tokens; the smallest that is nearly the fastest is taken."""
GAIN = 1.04
"""A larger budget must be so much faster."""
LONGEST_TRY = 0.3
"""Seconds of one layer beyond which no larger budget is tried."""
_WIDTH = 128
_REPEATS = 3
_SPIN = 2


def budget(decoder: Decoder) -> int:
    """Return how many tokens a forward pass had best have, found by running the first layer on made-up rows."""
    model = decoder.model
    kept, model.config.num_hidden_layers = model.config.num_hidden_layers, 1
    try:
        best, best_rate = BUDGETS[0], 0.0
        for tokens in BUDGETS:
            time_taken = seconds(lambda tokens=tokens: _one_layer(decoder, tokens))  # type: ignore[misc]
            if tokens / time_taken < GAIN * best_rate and best_rate:
                break
            best, best_rate = tokens, tokens / time_taken
            if time_taken > LONGEST_TRY:
                break
    finally:
        model.config.num_hidden_layers = kept
    return best


@torch.inference_mode()
def seconds_per_token(decoder: Decoder) -> float:
    """Return about how long a token takes in all layers, from the first layer on made-up rows."""
    model = decoder.model
    layers, model.config.num_hidden_layers = model.config.num_hidden_layers, 1
    try:
        one_layer = seconds(lambda: _one_layer(decoder, BUDGETS[0]))
    finally:
        model.config.num_hidden_layers = layers
    return one_layer * int(layers) / BUDGETS[0]


def _one_layer(decoder: Decoder, tokens: int) -> None:
    ids_RW = torch.ones(tokens // _WIDTH, _WIDTH, dtype=torch.long)
    text_RW = torch.arange(len(ids_RW))[:, None].expand(-1, _WIDTH)
    position_RW = torch.arange(_WIDTH).expand(len(ids_RW), -1)
    if decoder.flat:
        ids_RW, text_RW, position_RW = (table.reshape(1, -1) for table in (ids_RW, text_RW, position_RW))
    decoder(ids_RW, text_RW, position_RW, ForwardPass())
    if decoder.model.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Return the least time of some runs, after some that are not counted."""
    best = float("inf")
    for repeat in range(_SPIN + _REPEATS):
        began = time.perf_counter()
        work()
        if repeat >= _SPIN:
            best = min(best, time.perf_counter() - began)
    return best
