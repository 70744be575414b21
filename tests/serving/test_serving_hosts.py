"""Names that a server answers to: a page that makes its own name point here is turned away, before anything is read."""

from __future__ import annotations

import socket

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

import antiphon
from antiphon.errors import ConfigError
from antiphon.serving.app import create_app
from antiphon.serving.error_responses import ApiError
from antiphon.serving.hosts import HostRule
from antiphon.serving.server_settings import ServerSettings

OURS = {
    "127.0.0.1": [
        "127.0.0.1",
        "127.0.0.1:8000",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "[::1]",
        "[::1]:8000",
        "127.0.0.2",
    ],
    "::1": ["localhost:8000", "127.0.0.1", "[::1]:8000"],
    "localhost": ["localhost", "127.0.0.1:9"],
    "0.0.0.0": ["10.1.2.3:8000", "[fe80::1]:8000", "localhost", "127.0.0.1", socket.gethostname()],
    "::": ["10.1.2.3", "[2001:db8::7]", "localhost"],
    "192.168.7.7": ["192.168.7.7", "192.168.7.7:8000"],
    "search.lan": ["search.lan", "Search.LAN:8000"],
}
FOREIGN = {
    "127.0.0.1": [
        *("evil.example", "evil.example:8000", "10.1.2.3", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("evil.example@127.0.0.1", "127.0.0.1@evil.example", "", " ", "[evil]", "a b", "localhost:80:80", "0.0.0.0"),
    ],
    "0.0.0.0": ["evil.example", "evil.example:8000"],
    "192.168.7.7": ["192.168.7.8", "evil.example", "localhost"],
    "search.lan": ["other.lan", "10.1.2.3"],
}
SAME_ORIGIN = [
    ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://localhost", "localhost"),
    ("http://localhost:80", "localhost"),
    ("https://localhost", "localhost:443"),
    ("http://[::1]:8000", "[::1]:8000"),
]
CROSS_ORIGIN = [
    ("http://evil.example", "127.0.0.1:8000"),
    ("null", "127.0.0.1:8000"),
    ("http://localhost:3000", "localhost:8000"),
    ("http://localhost:8000", "127.0.0.1:8000"),
    ("file://", "localhost"),
    ("http://localhost.evil.example:8000", "localhost:8000"),
    ("", "localhost"),
]


def check(bound, host, origin=None, more=()):
    given = {} if host is None else {"host": host}
    HostRule(bound, more).check(Headers({**given, **({} if origin is None else {"origin": origin})}))


@pytest.mark.parametrize(("bound", "host"), [(bound, host) for bound, hosts in OURS.items() for host in hosts])
def test_names_of_what_it_is_bound_to_are_answered(bound, host):
    check(bound, host)


@pytest.mark.parametrize(("bound", "host"), [(bound, host) for bound, hosts in FOREIGN.items() for host in hosts])
def test_other_names_are_not(bound, host):
    with pytest.raises(ApiError, match="--allow-host") as refused:
        check(bound, host)
    assert refused.value.status_code == 421


def test_names_that_were_given_are_answered():
    check("127.0.0.1", "search.example.com:443", more=["Search.example.com"])
    check("127.0.0.1", "a.example.com", "https://a.example.com", more=["*.example.com"])
    check("127.0.0.1", "any.example:80", more=["*"])
    check("127.0.0.1", "any.example", "http://any.example", more=["*"])
    check("127.0.0.1", "inside:8000", "https://app.example.com", more=["*", "app.example.com"])
    check("127.0.0.1", "localhost:8000", "https://app.example.com", more=["app.example.com"])
    check("127.0.0.1", None)
    for host in ("example.com", "aexample.com", "a.example.com.evil"):
        with pytest.raises(ApiError):
            check("127.0.0.1", host, more=["*.example.com"])


@pytest.mark.parametrize(("origin", "host"), SAME_ORIGIN)
def test_its_own_page_may_ask(origin, host):
    check("127.0.0.1", host, origin)


@pytest.mark.parametrize("more", [(), ("*",)], ids=["", "any"])
@pytest.mark.parametrize(("origin", "host"), CROSS_ORIGIN)
def test_pages_of_others_may_not(origin, host, more):
    with pytest.raises(ApiError, match="may not use this server") as refused:
        check("127.0.0.1", host, origin, more)
    assert refused.value.status_code == 403


def test_names_that_are_none_are_said_at_once():
    for name in ("http://a.example", "a.example:80", "", "a b", "a/b"):
        with pytest.raises(ConfigError, match="is no name of a host"):
            ServerSettings(name="tiny", allow_hosts=(name,))
    ServerSettings(name="tiny", allow_hosts=("a.example", "*.a.example", "*", "10.0.0.1", "::1"))


def test_rebinding_reaches_neither_vectors_nor_the_page(tiny_base):
    app = create_app(antiphon.build(tiny_base, max_tokens=64), ServerSettings(name="tiny"))
    with TestClient(app, base_url="http://evil.example:8000") as client:
        paths = {path for path in client.app.openapi()["paths"]} | {"/", "/openapi.json"}
        for path in sorted(paths):
            for method in ("GET", "POST"):
                answer = client.request(method, path, headers={"Origin": "http://evil.example:8000"})
                assert answer.status_code == 421, path
                assert answer.headers["connection"] == "close"
                assert answer.json()["error"]["message"].endswith("--allow-host.")
