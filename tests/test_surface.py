"""The public surface is frozen: a new name or option is a decision, not an accident."""

from __future__ import annotations

import inspect

import typer.main

import antiphon
from antiphon.cli import app

NAMES = [
    "Encoder",
    "ModelOptions",
    "build",
    "calibrate",
    "choose_layers",
    "compare",
    "embed",
    "evaluate",
    "export",
    "load",
    "mine",
    "open_model",
    "save",
    "search",
    "train",
]
SIGNATURES = {
    "Encoder": "model budget compile attention linear widen",
    "evaluate": "model tasks out instructions limit seed budget cut compile label cache listener progress own_document "
    "strict trained_on engine",
    "compare": "runs published",
    "export": "model to out freeze_prompts dimensions",
    "build": "base template pooling prompts eos bidirectional max_tokens layers dtype device",
    "calibrate": "model texts method side field on_progress progress",
    "choose_layers": "model texts field side calibrated pairs",
    "load": "path device dtype",
    "save": "model path",
    "mine": "model pairs columns settings corpus instruction document_instruction cache rescore report on_progress "
    "progress strict batch_tokens compile",
    "train": "recipe overrides variant resume accept_changed_data first until on_step progress",
}
MODEL = "template pooling layers max-tokens bidirectional prompt prompt-name adapter dtype device"
"""The options of every command that opens a model, in this order and with one meaning."""
ENCODER = "batch-tokens compile"
ENGINE = "engine ray-address workers cores"
COMMANDS = {
    "build": f"out {MODEL}",
    "merge": f"out {MODEL}",
    "export": f"to out freeze-prompts dimensions {MODEL}",
    "show": f"side health {MODEL}",
    "embed": "out field id keep side precision truncate-dim shard-size batch-size force verify strict "
    f"{ENCODER} {MODEL} plan passages tokens tokens-per-second price within {ENGINE}",
    "calibrate": f"out method side field {MODEL}",
    "search": f"model top where mode show field id verify {ENCODER} {MODEL}",
    "index": "kind recall",
    "train": "set variant plan resume accept-changed-data from until strict",
    "reconstruct": f"side length temperature seed {MODEL}",
    "mine": "out columns corpus negatives range-min range-max relative-margin absolute-margin max-score min-score "
    f"sampling seed limit cache rescore report force strict {ENCODER} {MODEL}",
    "evaluate": f"tasks out instructions limit seed label cache own-document strict cut dry-run "
    f"trained-on submit hub-name {ENCODER} {MODEL} {ENGINE}",
    "compare": "out published",
    "parity": f"side {MODEL}",
    "doctor": f"model side {MODEL}",
    "demo": "model pairs query zero-shot out",
    "serve": f"host port name api-key allow-host batch-tokens max-queue compile upstream {MODEL}",
    "tokens": f"input field id side {MODEL}",
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
