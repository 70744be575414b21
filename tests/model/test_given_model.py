"""What is given in a model's place, a name above all, is refused in a sentence that says how to open it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import antiphon
from antiphon.errors import ModelError

VERBS: dict[str, Callable[[Any], object]] = {
    "Encoder": lambda model: antiphon.Encoder(model),
    "embed": lambda model: antiphon.embed(model, ["a text"], "out"),
    "evaluate": lambda model: antiphon.evaluate(model, ["pairs.tsv"]),
    "mine": lambda model: antiphon.mine(model, "pairs.jsonl"),
    "search": lambda model: antiphon.search("texts.jsonl", "a query", model=model),
    "calibrate": lambda model: antiphon.calibrate(model, ["a text"]),
    "choose_layers": lambda model: antiphon.choose_layers(model, ["a text"]),
    "save": lambda model: antiphon.save(model, "saved"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("given", ["nano", Path("a/folder"), 3, object()], ids=["name", "path", "number", "object"])
def test_what_is_no_model_is_refused_before_anything_is_read(
    verb: str, given: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"^{verb} takes a ") as refused:
        VERBS[verb](given)
    if isinstance(given, str | Path):
        assert f"antiphon.open_model({str(given)!r})" in str(refused.value)
    assert not list(tmp_path.iterdir())
