"""What a server is told: its name, key and limits."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of one server."""

    name: str
    """The model's id, as clients name it."""
    api_key: str | None = None
    """The key that clients must send; None asks for none."""
    max_batch_tokens: int = 32768
    """Tokens of the sequences that one call of the model embeds together."""
    max_queue: int = 4096
    """Texts that may wait; a request beyond that is answered with 429."""
    max_inputs: int = 2048
    """Texts of one request."""
    max_body_bytes: int = 8 * 2**20
    """Bytes of a request's body."""
    body_seconds: float = 30.0
    """The longest silence while a request's body arrives."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("The model's name is empty; clients need one to ask for.")
        if self.api_key is not None and (not self.api_key.strip() or not self.api_key.isascii()):
            raise ConfigError("The API key is empty or not ASCII; give one of letters and digits, or none at all.")
        for field in ("max_batch_tokens", "max_queue", "max_inputs", "max_body_bytes", "body_seconds"):
            if getattr(self, field) <= 0:
                raise ConfigError(f"{field} is {getattr(self, field)}; a number above 0 is wanted.")
