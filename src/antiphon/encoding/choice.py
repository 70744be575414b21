"""Whether compiling the layers pays for the tokens to come: by what it took and gained on this machine before.

What a compiled view of a shape of model cost and gained is kept in the user's cache, so that a short job never pays for
it and a long one knows. Before anything is known, little is assumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from antiphon.encoding.budget import seconds_per_token
from antiphon.encoding.decoder import Decoder
from antiphon.files import cache_folder, write_whole

LEAST_TOKENS = 20_000
"""Fewer tokens than these are not worth a measurement."""
ASSUMED_SECONDS = 40.0
ASSUMED_SHARE = 0.1
"""What compiling is taken to cost and to gain where it was never done."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gain:
    """What compiling the layers of one shape of model cost and gained."""

    cost: float
    """Seconds that it took, in a process that could read what an earlier one had built."""
    plain: float
    """Seconds a token with the layers as they are."""
    compiled: float
    """Seconds a token with compiled layers."""

    def pays(self, tokens: int) -> bool:
        """Return whether so many tokens win back what compiling costs."""
        return tokens * (self.plain - self.compiled) > self.cost


class Choice:
    """The choice for the layers of one view; `mode` names what they would become."""

    def __init__(self, decoder: Decoder, mode: str) -> None:
        self.decoder = decoder
        self.path = cache_folder() / "compiled" / f"{_key(decoder, mode)}.json"

    def pays(self, tokens: int) -> bool:
        """Return whether compiling pays for so many tokens; a layer is timed where nothing is known yet."""
        if tokens < LEAST_TOKENS:
            return False
        known = self.known()
        if known is None:
            plain = seconds_per_token(self.decoder)
            known = Gain(ASSUMED_SECONDS, plain, plain * (1 - ASSUMED_SHARE))
        return known.pays(tokens)

    def known(self) -> Gain | None:
        """Return what was measured before, None where nothing was or it cannot be read."""
        try:
            return Gain(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            logger.info("%s cannot be read (%s); it is measured again.", self.path, error)
            return None

    def measure(self, compiled: Decoder, cost: float) -> Gain:
        """Return what a compiled view gains over this one, and keep it; a cache that cannot be written is no fault."""
        gain = Gain(cost, seconds_per_token(self.decoder), seconds_per_token(compiled))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(asdict(gain)).encode())
        except OSError as error:
            logger.info("%s could not be written (%s).", self.path, error)
        return gain


def _key(decoder: Decoder, mode: str) -> str:
    config, device = decoder.model.config, decoder.model.device
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    parts: dict[str, Any] = {
        "shape": {name: getattr(config, name, None) for name in ("model_type", *names)},
        "dtype": str(decoder.model.dtype),
        "plain": asdict(decoder.execution),
        "mode": mode,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _processor() -> str:
    """Return the processor's name and what PyTorch uses of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{named or platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
