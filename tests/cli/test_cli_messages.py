"""What reaches a user's terminal: our warnings, once where they are of a lasting state, and no library's."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest
import typer

from antiphon.cli import run_app

CATEGORIES = (FutureWarning, DeprecationWarning, PendingDeprecationWarning, UserWarning, RuntimeWarning)


def printed(command, capsys) -> str:
    commands = typer.Typer()
    commands.command()(command)
    with pytest.raises(SystemExit) as end:
        run_app(commands, [])
    assert end.value.code in (None, 0)
    return capsys.readouterr().err


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_warning_of_a_library_reaches_the_terminal(category, monkeypatch, capsys):
    monkeypatch.setattr(sys, "warnoptions", [])

    def command() -> None:
        warnings.warn("`old` is deprecated; use `new`", category, stacklevel=1)

    assert printed(command, capsys) == ""


def test_who_asks_for_warnings_sees_them(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])

    def command() -> None:
        warnings.warn("`old` is deprecated", FutureWarning, stacklevel=1)

    commands = typer.Typer()
    commands.command()(command)
    with pytest.raises(FutureWarning):  # an error under the filters of the tests
        run_app(commands, [])


def test_a_warning_of_a_lasting_state_is_written_once_and_an_event_each_time(capsys):
    logger = logging.getLogger("antiphon.some.module")

    def command() -> None:
        for _ in range(3):
            logger.warning("the fast path is %s", "off", extra={"once": True})
            logger.warning("a row is empty")

    told = printed(command, capsys).splitlines()
    assert told.count("the fast path is off") == 1
    assert told.count("a row is empty") == 3
    assert not [one for one in logging.getLogger("antiphon").handlers if type(one).__name__ == "_Messages"]
