"""What a terminal is sent: our own colours and no control character of a text's, which are shown in its place."""

from __future__ import annotations

import io
import re
import sys
import time
from types import SimpleNamespace

import pytest

from antiphon.cli import report
from antiphon.cli.report.visible import visible

# a title, a link, a screen that is cleared, a question that the terminal would answer, one byte that begins a sequence
EVIL = "a\x1b]0;title\x07b\x1b]8;;http://evil\x1b\\c\x1b[2Jd\x1b[6ne\x9b31mf\x08g\x7fh\rz"
OUR_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch):
    """Replace both streams, in the test itself: pytest's capture sets its own behind every fixture."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    return out, err


def hit():
    return SimpleNamespace(score=0.5, id=EVIL, text=EVIL, fields={})


PRINTED = {
    "say": lambda: report.say(EVIL),
    "note": lambda: report.note(EVIL),
    "error": lambda: report.error(EVIL),
    "table": lambda: report.table(("name", "figure"), [(EVIL, EVIL)], title=EVIL),
    "hits": lambda: report.hits([hit()]),
}


def commanding(text: str) -> list[str]:
    """The characters that a terminal obeys, but those of our colours, lines and tabs."""
    return [one for one in OUR_COLOURS.sub("", text) if one not in "\n\t" and (one < " " or "\x7f" <= one < "\xa0")]


@pytest.mark.parametrize("name", PRINTED)
def test_a_terminal_is_sent_no_control_character_of_a_text(name, monkeypatch):
    terminal = at_terminal(monkeypatch)
    PRINTED[name]()
    sent = "".join(stream.getvalue() for stream in terminal)
    assert not commanding(sent)
    assert "␛]0;title" in sent
    assert "\x1b[2J" not in sent


def test_progress_is_moved_by_ours_alone(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with report.progress(EVIL) as tell:
        tell(1, 2)
    sent = terminal[1].getvalue()
    assert "␛]0;title" in sent
    assert "\x1b]" not in sent
    assert "\x9b" not in sent
    assert "\x1b[6n" not in sent


def test_who_waits_longer_than_a_second_is_told_at_a_terminal(monkeypatch, capfd):
    with report.waiting("in a pipe"):
        time.sleep(1.2)
    assert capfd.readouterr() == ("", "")
    terminal = at_terminal(monkeypatch)
    with report.waiting("what is quick"):
        pass
    with report.waiting("opening a model"):
        until = time.monotonic() + 30  # a busy machine tells late
        while not terminal[1].getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    assert terminal[0].getvalue() == ""
    assert "opening a model" in terminal[1].getvalue()
    assert "quick" not in terminal[1].getvalue()


def test_the_tokens_of_a_text_are_shown(monkeypatch, tiny_base):
    import antiphon
    from antiphon.model.description import describe

    described = describe(antiphon.build(tiny_base, "echo", max_tokens=64), EVIL)
    terminal = at_terminal(monkeypatch)
    report.description(described)
    assert "␛" in terminal[0].getvalue()
    assert not commanding(terminal[0].getvalue())


def test_a_pipe_gets_the_data_as_it_is(capsys):
    report.say("a\x1b[31mb\x07")
    assert capsys.readouterr().out == "a\x1b[31mb\x07\n"


def test_visible_changes_nothing_else():
    plain = "naïve — 東京 🎶\n\tשלום \u200d"
    assert visible(plain) == plain
    assert visible("\x1b\x00\x7f\x9b") == "␛␀␡\\x9b"
