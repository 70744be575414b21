"""The Encoder: what `model.encode` returns, several times faster."""

from antiphon.encoding.encoder import Compile, Encoder

__all__ = ["Compile", "Encoder"]
