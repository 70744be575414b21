"""Which of the attention calls is the fastest on this processor: timed once on made-up rows of the model's heads.

In bfloat16 our own kernel is the fastest where it can be built, then PyTorch's call on a processor with AMX, and
products on one without. The times are kept in the user's cache, so that the same texts give the same bits in every
run on a machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from antiphon.encoding.budget import seconds
from antiphon.encoding.kernels.attention import CALLS, FLAT
from antiphon.encoding.kernels.varlen import Spans
from antiphon.encoding.masks import additive, packed_mask
from antiphon.encoding.measured import Measured, shape_of
from antiphon.errors import ModelError

ROWS, WIDTH = 8, 192
"""The rows that are timed, each of one text."""
SHAPE = ("num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim")

logger = logging.getLogger(__name__)


def fastest_first(calls: Sequence[str], model: PreTrainedModel, dtype: torch.dtype) -> tuple[str, ...]:
    """Return the names of attention calls with the fastest first; a GPU's, and those in float32, stay where they are.

    In float32 the calls are as fast as each other, and texts end to end need no filling, which no call's time shows.
    """
    if model.device.type != "cpu" or dtype != torch.bfloat16:
        return tuple(calls)
    kept = Measured("attention", {"shape": shape_of(model.config, *SHAPE), "dtype": str(dtype)}, model.device)
    times = kept.known()
    if times is None or not set(calls) <= set(times):
        times = _times(calls, model, dtype)
        kept.keep(times)
        logger.info(
            "Attention calls in milliseconds: %s.", {name: round(1e3 * time, 2) for name, time in times.items()}
        )
    return tuple(sorted(calls, key=times.__getitem__))


@torch.inference_mode()
def _times(calls: Sequence[str], model: PreTrainedModel, dtype: torch.dtype) -> dict[str, float]:
    """Return the seconds of each call over a causal mask."""
    heads = int(model.config.num_attention_heads)
    shared = int(getattr(model.config, "num_key_value_heads", None) or heads)
    width = int(getattr(model.config, "head_dim", None) or model.config.hidden_size // heads)
    states = torch.rand(ROWS, WIDTH, heads + 2 * shared, width).to(dtype).transpose(1, 2)
    query, key, value = torch.split(states, [heads, shared, shared], dim=1)
    text_RW, position_RW = torch.zeros(ROWS, WIDTH, dtype=torch.long), torch.arange(WIDTH).expand(ROWS, -1)
    mask = additive(packed_mask(text_RW, position_RW, prefix=0, causal=True), dtype)
    flat = [states.transpose(0, 1).reshape(1, -1, ROWS * WIDTH, width) for states in (query, key, value)]
    spans = Spans.of([WIDTH] * ROWS, 0, query.device, dtype)
    runs = {
        name: partial(CALLS[name], model, *flat, None, spans=spans, reach=(-1, 0))
        if name in FLAT
        else partial(CALLS[name], model, query, key, value, mask)
        for name in calls
    }
    return {name: _seconds(run) for name, run in runs.items()}


def _seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes; one that does not take these heads comes last."""
    try:
        return seconds(run)
    except ModelError:
        return float("inf")
