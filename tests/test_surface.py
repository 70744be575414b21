"""The public surface is frozen: a new name or option is a decision, not an accident."""

from __future__ import annotations

import inspect

import typer.main

import antiphon
from antiphon.cli import app

NAMES = ["build", "embed", "load", "save", "search"]
SIGNATURES = {
    "build": "base template pooling prompts bidirectional max_tokens dtype device",
    "load": "path device dtype",
    "save": "model path",
}
COMMANDS = {
    "show": "template pooling prompt side max-tokens bidirectional health",
    "embed": "out field side shard-size batch-size force template pooling max-tokens",
    "search": "model top field template pooling max-tokens",
    "parity": "",
    "demo": "model pairs query",
}


def test_public_names():
    assert antiphon.__all__ == NAMES
    for name in NAMES:
        assert callable(getattr(antiphon, name))
    assert antiphon.__version__.count(".") == 2


def test_signatures():
    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(antiphon, name)).parameters) == parameters.split()


def test_commands_and_their_options():
    commands = typer.main.get_command(app).commands
    assert {name: options(command) for name, command in commands.items()} == COMMANDS


def options(command) -> str:
    return " ".join(name.lstrip("-") for p in command.params for name in p.opts if name.startswith("--"))
