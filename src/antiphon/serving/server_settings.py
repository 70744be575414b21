"""What a server is told: its name, key and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from antiphon.errors import ConfigError
from antiphon.serving.hosts import checked_name

if TYPE_CHECKING:
    from antiphon.encoding import Compile


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of one server."""

    name: str
    """The model's id, as clients name it."""
    api_key: str | None = None
    """The key that clients must send; None asks for none."""
    max_batch_tokens: int = 32768
    """Tokens of the sequences that one call of the model embeds together."""
    compile: Compile = False
    """Whether the layers are compiled before the server is ready; "auto" does it between two batches, once it pays."""
    max_queue: int = 4096
    """Texts that may wait; a request beyond that is answered with 429."""
    max_inputs: int = 2048
    """Texts of one request."""
    max_body_bytes: int = 8 * 2**20
    """Bytes of a request's body."""
    body_seconds: float = 30.0
    """The time in which the whole of a request's body has to arrive."""
    host: str = "127.0.0.1"
    """What the server is bound to; it answers to the names that belong to it."""
    upstream: str | None = None
    """The address of a server of the same weights that computes the vectors of token ids; None computes them here."""
    upstream_key: str | None = None
    """What that server is sent as a bearer token."""
    allow_hosts: tuple[str, ...] = ()
    """Further names that clients may ask for and pages may come from; `*` is any to ask for, and none to come from."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("The model's name is empty; clients need one to ask for.")
        if self.api_key is not None and (not self.api_key.strip() or not self.api_key.isascii()):
            raise ConfigError("The API key is empty or not ASCII; give one of letters and digits, or none at all.")
        for name in self.allow_hosts:
            if not checked_name(name):
                raise ConfigError(f"{name!r} is no name of a host; give one such as search.example.com, or *.")
        for field in ("max_batch_tokens", "max_queue", "max_inputs", "max_body_bytes", "body_seconds"):
            if getattr(self, field) <= 0:
                raise ConfigError(f"{field} is {getattr(self, field)}; a number above 0 is wanted.")
