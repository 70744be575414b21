"""The Encoder: what `model.encode` returns, several times faster."""

from antiphon.encoding.encoder import Encoder

__all__ = ["Encoder"]
