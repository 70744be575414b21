"""Which names a server answers to: a web page that makes its own name point here (DNS rebinding) is turned away.

A browser sends the name of the page's address as Host, and the page's own as Origin. Neither is a secret; what counts
is that a page cannot choose them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers

from antiphon.serving.error_responses import ApiError
from antiphon.serving.sockets import is_loopback

ANY = "*"
_EVERYWHERE = ("0.0.0.0", "::", "")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]*))?", re.IGNORECASE)
_PORTS = {"http": "80", "https": "443"}


class HostRule:
    """The names that belong to what a server is bound to, and those that it was allowed besides.

    Bound to a loopback address: every loopback name. Bound everywhere: any address in figures, which nobody can make
    point elsewhere, localhost and this machine's name. Bound to one address: that. `*` is any name to be asked for, and
    no page's: what a page of another origin may do is said by its name alone.
    """

    def __init__(self, bound: str, more: Sequence[str] = ()) -> None:
        self._bound = bound.lower()
        self._more = tuple(name.lower() for name in more)
        self._names = {self._bound, *self._more}
        if self._bound in _EVERYWHERE:
            self._names.add(socket.gethostname().lower())

    def check(self, headers: Headers) -> None:
        """Raise a 421 for a Host that is not this server's, a 403 for a page of another origin.

        Without a Host (HTTP/1.0, as some balancers ask for health) there is no browser either.
        """
        host = headers.get("host")
        if host is not None and ANY not in self._more and not self._is_ours(_split(host)[0]):
            raise ApiError(
                421,
                f"This server is not {host[:100]!r}; if it is to answer to that name, start it with --allow-host.",
                code="host_not_allowed",
                headers={"Connection": "close"},
            )
        origin = headers.get("origin")
        if origin is not None and not self._same(origin, host):
            raise ApiError(
                403,
                f"A page of {origin[:100]!r} may not use this server; --allow-host with its name lets it ask.",
                code="origin_not_allowed",
                headers={"Connection": "close"},
            )

    def _is_ours(self, name: str) -> bool:
        address = _address(name)
        if name in self._names or self._is_allowed(name):
            return True
        everywhere = self._bound in _EVERYWHERE
        if address is not None:
            own = _address(self._bound)
            return everywhere or address == own or (is_loopback(str(address)) and is_loopback(self._bound))
        return name == "localhost" and (everywhere or is_loopback(self._bound))

    def _is_allowed(self, name: str) -> bool:
        """Return whether a name was given, or ends in one that was given with a star before its first dot."""
        return name in self._more or any(host.startswith("*.") and name.endswith(host[1:]) for host in self._more)

    def _same(self, origin: str, host: str | None) -> bool:
        """Return whether a page is this server's own, by name and port, or of a name that was given."""
        scheme, _, rest = origin.lower().partition("://")
        name, port = _split(rest)
        if name and self._is_allowed(name):
            return True
        usual = _PORTS.get(scheme)
        if host is None or usual is None:
            return False
        asked, asked_port = _split(host)
        return name == asked and (port or usual) == (asked_port or usual)


def _split(host: str) -> tuple[str, str]:
    """Return name, or address without brackets, and port of a Host header; an empty name where it is none."""
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return "", ""
    return found[1].strip("[]").rstrip(".").lower(), found[2] or ""


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def checked_name(name: str) -> bool:
    """Return whether a name can stand in a Host header: no scheme, path or port."""
    bare = name.removeprefix("*.")
    return name == ANY or _address(bare) is not None or (bare != "" and _split(bare)[0] == bare.lower())
