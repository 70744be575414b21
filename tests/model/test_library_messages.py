"""The libraries below are silent in a script, show where weights are loaded to who types, and speak afterwards."""

from __future__ import annotations

import logging
import sys

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

import antiphon
from antiphon.model.library_messages import hushed

BAR = "Loading weights: 100%"


@pytest.fixture
def told():
    """What the libraries log at the levels that they have by themselves."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    levels = [logger.level for logger in loggers]
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()
    transformers_logging.set_verbosity_warning()
    loggers[1].setLevel(logging.NOTSET)
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)
    if not shown:
        transformers_logging.disable_progress_bar()


def opened_and_saved(base, folder):
    model = antiphon.build(base, "classical", pooling="last", max_tokens=32, prompts={"query": "Find it"})
    return antiphon.load(antiphon.save(model, folder))


def test_a_script_hears_nothing(tiny_base, tmp_path, told, capsys):
    opened_and_saved(tiny_base, tmp_path / "saved")
    assert capsys.readouterr().err == ""
    assert told == []


def test_who_types_sees_each_loading_once_and_no_report(tiny_base, tmp_path, told, capsys, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    opened_and_saved(tiny_base, tmp_path / "saved")
    assert capsys.readouterr().err.count(BAR) == 2
    assert told == []


def test_a_verb_with_a_bar_of_its_own_shows_none_of_theirs(tiny_base, tmp_path, told, capsys, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    source = tmp_path / "pairs.csv"
    source.write_text("query,positive\n" + "".join(f"what is {n},It is {n}.\n" for n in range(8)))
    recipe = {
        "name": "small",
        "out": str(tmp_path / "run"),
        "model": {"base": str(tiny_base), "template": "classical", "max_tokens": 32},
        "data": {"sets": [{"name": "pairs", "source": str(source)}]},
        "stage": [{"name": "contrast", "loss": "contrastive", "steps": 1, "batch_size": 4}],
    }
    antiphon.train(recipe, progress=True)
    err = capsys.readouterr().err
    assert "contrast: 100%" in err
    assert "Loading weights" not in err
    assert "Writing model shards" not in err
    assert told == []


def test_afterwards_they_speak_as_before(told):
    ours = logging.getLogger("sentence_transformers")
    for chosen in (logging.NOTSET, logging.DEBUG, logging.CRITICAL):
        ours.setLevel(chosen)
        transformers_logging.set_verbosity(chosen or logging.WARNING)
        with hushed(bars=False):
            assert not transformers_logging.is_progress_bar_enabled()
            assert ours.level == (chosen or logging.ERROR)
            assert transformers_logging.get_verbosity() == (chosen or logging.ERROR)
        assert transformers_logging.is_progress_bar_enabled()
        assert ours.level == chosen
        assert transformers_logging.get_verbosity() == (chosen or logging.WARNING)


def test_bars_that_were_off_stay_off(told):
    transformers_logging.disable_progress_bar()
    with hushed(bars=True):
        assert not transformers_logging.is_progress_bar_enabled()
    assert not transformers_logging.is_progress_bar_enabled()


@pytest.mark.parametrize("disabled", [True, False])
def test_bars_of_downloads_are_left_alone(told, disabled):
    (disable_progress_bars if disabled else enable_progress_bars)()
    try:
        with hushed(bars=False):
            assert are_progress_bars_disabled() is disabled
        assert are_progress_bars_disabled() is disabled
    finally:
        enable_progress_bars()
