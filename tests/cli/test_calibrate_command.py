"""`antiphon calibrate`: a folder with a map, or a sentence."""

from __future__ import annotations

from conftest import make_base
from typer.testing import CliRunner

import antiphon
from antiphon.cli import app
from antiphon.errors import AntiphonError
from antiphon.model.calibration import calibration_of


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_a_language_model_becomes_a_calibrated_folder(tmp_path):
    base = make_base(tmp_path / "base")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"text number {number} of {'many ' * (number % 7)}" for number in range(40)))
    done = run(base, texts, "--out", tmp_path / "out", "--method", "center+whiten:0.5", "--max-tokens", 64)
    assert done.exit_code == 0, done.output
    assert "40 (texts.txt)" in done.output
    record = calibration_of(antiphon.load(tmp_path / "out"))
    assert (record.method, record.texts, record.rows) == ("center+whiten:0.5", "texts.txt", 40)
    again = run(base, texts, "--out", tmp_path / "out", "--max-tokens", 64)
    assert isinstance(again.exception, AntiphonError)
    assert "exists and is not empty" in str(again.exception)
