"""docs/reference is what the code says now, and nothing in it is without a meaning."""

from __future__ import annotations

import pytest

from tools import reference


@pytest.fixture(scope="module")
def pages():
    return reference.pages()


def test_the_pages_are_current(pages):
    there = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.glob("*.md")}
    assert there == pages, "run python -m tools.reference"


def test_every_key_option_and_name_has_a_meaning(pages):
    empty = [line for text in pages.values() for line in text.splitlines() if line.endswith("|  |")]
    assert not empty
    assert "None" not in [line.strip() for line in pages["python.md"].splitlines()]
