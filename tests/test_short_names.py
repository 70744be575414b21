"""Modules that guides and users' code name from the top are the very modules that stand in their rooms."""

from __future__ import annotations

import subprocess
from importlib import import_module

import pytest

SHORT = {
    "antiphon.losses": "antiphon.training.losses",
    "antiphon.losses.head": "antiphon.training.losses.head",
    "antiphon.mixtures": "antiphon.data.mixtures",
    "antiphon.pairs": "antiphon.data.pairs",
    "antiphon.parity": "antiphon.model.parity",
}


@pytest.mark.parametrize("short", SHORT)
def test_a_short_name_is_the_same_module(short):
    assert import_module(short) is import_module(SHORT[short])
    assert import_module(SHORT[short]).__name__ == SHORT[short]


def test_a_name_below_a_short_one_that_does_not_exist_is_said_so():
    with pytest.raises(ModuleNotFoundError):
        import_module("antiphon.losses.nothing")
    with pytest.raises(ModuleNotFoundError):
        import_module("antiphon.nothing")


def test_the_short_name_first_and_then_the_long_one(programs):
    code = (
        "import antiphon\nfrom antiphon.pairs.columns import Pair\n"
        "from antiphon.data.pairs.columns import Pair as same\nassert Pair is same\n"
        "import antiphon.parity\nassert antiphon.parity.__name__ == 'antiphon.model.parity'"
    )
    subprocess.run([str(programs / "python"), "-c", code], check=True)
