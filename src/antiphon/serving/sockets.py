"""The socket of a server, had before the model is loaded: a port that is taken is said at once."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from antiphon.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket on host and port; a port of 0 is any free one. ConfigError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"The server cannot listen on {host} port {port} ({error}); give another --host or --port."
        ) from None
    return listener


def url(listener: socket.socket) -> str:
    """Return the address of a socket, for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
