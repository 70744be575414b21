"""Bars: on where somebody types, off in scripts, as asked where it is said; a caller's own function stands for one."""

from __future__ import annotations

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

import antiphon
from antiphon.data import progress_bar
from antiphon.evaluation import evaluate

TEXTS = [f"sort a list of {number} items" for number in range(20)]


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "classical", max_tokens=32, dtype="float32", device="cpu")


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": text, "positive": f"Return it, {number}."} for number, text in enumerate(TEXTS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def scored(tmp_path):
    path = tmp_path / "scored.tsv"
    rows = [f"sort {a} items\tsort {b} items\t{5 - abs(a - b)}" for a in range(4) for b in range(4)]
    path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]))
    return path


@pytest.fixture
def verbs(model, tiny_base, pairs, scored, tmp_path):
    """Each verb as a function of its keywords, with the words that its bar shows at the end."""
    recipe = {
        "name": "small",
        "model": {"base": str(tiny_base), "template": "classical", "max_tokens": 32},
        "data": {"sets": [{"name": "pairs", "source": str(pairs)}]},
        "stage": [{"name": "contrast", "loss": "contrastive", "steps": 2, "batch_size": 4}],
    }
    new = iter(range(100))
    return {
        "embed": (
            lambda **given: antiphon.embed(model, TEXTS, tmp_path / f"v{next(new)}", **given),
            r"embedding.*20.0/20",
        ),
        "mine": (lambda **given: antiphon.mine(model, pairs, **given), r"mining.*40.0/40"),
        "calibrate": (lambda **given: antiphon.calibrate(model, TEXTS, **given), r"calibrating.*20.0 texts"),
        "evaluate": (
            lambda **given: evaluate(model, [scored], instructions="own", cache=False, **given),
            r"scored \(1 of 1\): 100%",
        ),
        "train": (
            lambda **given: antiphon.train({**recipe, "out": str(tmp_path / f"r{next(new)}")}, **given),
            r"contrast: 100%.*2.00/2.00",
        ),
    }


VERBS = ("embed", "mine", "calibrate", "evaluate", "train")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_a_bar_at_a_prompt_and_none_in_a_script(verb, verbs, monkeypatch, capsys):
    call, words = verbs[verb]
    capsys.readouterr()
    call()
    assert not re.search(words, capsys.readouterr().err)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    call()
    out, err = capsys.readouterr()
    assert re.search(words, err), err
    assert not re.search(words, out)
    call(progress=False)
    assert not re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(("verb", "keyword"), [("embed", "on_progress"), ("mine", "on_progress"),
                                               ("calibrate", "on_progress"), ("train", "on_step")])  # fmt: skip
def test_a_function_of_the_callers_takes_the_bars_place(verb, keyword, verbs, capsys):
    call, words = verbs[verb]
    told = []
    call(**{keyword: lambda *amounts: told.append(amounts), "progress": True})
    assert told
    assert not re.search(words, capsys.readouterr().err)


def test_a_listener_takes_the_bars_place(verbs, capsys):
    told = []
    listener = SimpleNamespace(
        estimate=lambda *_: None, task=lambda *_: None, progress=lambda done, total: told.append((done, total))
    )
    verbs["evaluate"][0](listener=listener, progress=True)
    assert told[-1][0] == told[-1][1]
    assert "%|" not in capsys.readouterr().err


def test_what_was_done_before_does_not_count_for_the_rate(capsys):
    with progress_bar.telling("going on", True, unit="texts") as tell:
        tell(1_000_000, 1_000_010)
        tell(1_000_010, 1_000_010)
        assert tell._shown.initial == 1_000_000
        assert tell._shown.n == 1_000_010
    assert "going on: 100%" in capsys.readouterr().err


def test_who_types(monkeypatch):
    monkeypatch.delattr(sys, "ps1", raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not progress_bar.is_interactive()
    monkeypatch.setattr(sys, "flags", SimpleNamespace(interactive=1))
    assert progress_bar.is_interactive()
    monkeypatch.setattr(sys, "flags", SimpleNamespace(interactive=0))
    notebook = ModuleType("IPython")
    notebook.get_ipython = lambda: None  # imported by a library, in a script
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    assert not progress_bar.is_interactive()
    notebook.get_ipython = object
    assert progress_bar.is_interactive()


def test_only_the_first_process_shows_a_bar(monkeypatch):
    assert progress_bar.wants_bar(True)
    monkeypatch.setenv("RANK", "1")
    assert not progress_bar.wants_bar(True)
