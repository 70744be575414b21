"""The public surface is frozen: a new name or option is a decision, not an accident."""

from __future__ import annotations

import inspect

import typer.main

import antiphon
from antiphon.cli import app

NAMES = [
    "Encoder",
    "build",
    "calibrate",
    "compare",
    "embed",
    "evaluate",
    "export",
    "load",
    "mine",
    "save",
    "search",
    "train",
]
SIGNATURES = {
    "Encoder": "model budget compile attention linear",
    "evaluate": "model tasks out instructions limit seed budget cut label cache listener own_document strict",
    "compare": "runs published",
    "export": "model to out freeze_prompts dimensions",
    "build": "base template pooling prompts eos bidirectional max_tokens layers dtype device",
    "calibrate": "model texts method side field on_progress",
    "load": "path device dtype",
    "save": "model path",
    "mine": "model pairs settings corpus instruction document_instruction cache on_progress strict",
    "train": "recipe overrides variant resume accept_changed_data first until on_step",
}
COMMANDS = {
    "export": "to out freeze-prompts dimensions template pooling max-tokens",
    "show": "template pooling prompt side max-tokens bidirectional health",
    "embed": "out field side shard-size batch-size force template pooling max-tokens strict",
    "calibrate": "out method side field template pooling max-tokens",
    "search": "model top field verify template pooling max-tokens",
    "train": "set variant plan resume accept-changed-data from until strict",
    "reconstruct": "side prompt max-tokens temperature seed",
    "mine": "out corpus negatives range-min range-max relative-margin absolute-margin max-score min-score sampling "
    "seed instruction limit cache force template pooling max-tokens strict",
    "evaluate": "tasks out adapter template pooling max-tokens instructions limit seed budget label cache "
    "own-document strict cut dry-run",
    "compare": "out published",
    "parity": "side",
    "doctor": "model side",
    "demo": "model pairs query zero-shot out",
    "serve": "host port name api-key allow-host max-batch-tokens max-queue template pooling max-tokens",
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
