"""Whether compiling the layers pays for the tokens to come: by what it took and gained on this machine before.

What a compiled view of a shape of model cost and gained is kept in the user's cache, so that a short job never pays for
it and a long one knows. Before anything is known, little is assumed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from antiphon.encoding.budget import seconds_per_token
from antiphon.encoding.decoder import Decoder
from antiphon.encoding.measured import Measured, shape_of

LEAST_TOKENS = 20_000
"""Fewer tokens than these are not worth a measurement."""
ASSUMED_SECONDS = 40.0
ASSUMED_SHARE = 0.1
"""What compiling is taken to cost and to gain where it was never done."""


@dataclass(frozen=True)
class CompileGain:
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
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        parts = {
            "shape": shape_of(decoder.model.config, *names),
            "dtype": str(decoder.model.dtype),
            "plain": asdict(decoder.execution),
            "mode": mode,
        }
        self.kept = Measured("compiled", parts, decoder.model.device)

    def pays(self, tokens: int) -> bool:
        """Return whether compiling pays for so many tokens; a layer is timed where nothing is known yet."""
        if tokens < LEAST_TOKENS:
            return False
        known = self.known()
        if known is None:
            plain = seconds_per_token(self.decoder)
            known = CompileGain(ASSUMED_SECONDS, plain, plain * (1 - ASSUMED_SHARE))
        return known.pays(tokens)

    def known(self) -> CompileGain | None:
        """Return what was measured before, None where nothing was or it cannot be read."""
        found = self.kept.known()
        if found is None or found.keys() != CompileGain.__dataclass_fields__.keys():
            return None
        return CompileGain(**found)

    def measure(self, compiled: Decoder, cost: float) -> CompileGain:
        """Return what a compiled view gains over this one, and keep it; a cache that cannot be written is no fault."""
        gain = CompileGain(cost, seconds_per_token(self.decoder), seconds_per_token(compiled))
        self.kept.keep(asdict(gain))
        return gain
