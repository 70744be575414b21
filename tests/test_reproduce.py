"""docs/reproduce.md: the table of figures is what the recipes say now, and every figure has a word."""

from __future__ import annotations

import re

from tools import reproduce
from tools.published_runs import PUBLISHED


def test_the_table_is_current():
    text = reproduce.PAGE.read_text(encoding="utf-8")
    there = text.split(reproduce.BEGIN)[1].split(reproduce.END)[0].strip()
    assert there == reproduce.table(), "run python -m tools.reproduce"


def test_every_recipe_and_every_figure_is_judged():
    assert set(PUBLISHED) == reproduce.recipes()
    rows = re.findall(r"^\| `.*\|$", reproduce.table(), re.MULTILINE)
    verdicts = [row.rsplit("|", 2)[1].strip() for row in rows]
    assert len(rows) > 250
    assert all(verdicts)
    assert verdicts.count("equal") > 180


def test_the_tests_that_the_page_names_are_there():
    text = reproduce.PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"tests/[a-z/_0-9]+\.py", text):
        assert (reproduce.ROOT / path).exists(), path
