"""Write the table of docs/reproduce.md: every recipe's figures beside the published configuration.

`python -m tools.reproduce` writes it between its marks; a test compares it with what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from antiphon.training.recipe import read, read_toml
from tools.published_runs import (
    ECHO_MISTRAL,
    LLM2VEC_MISTRAL,
    PUBLISHED,
    REASONS,
    UNKNOWN,
    VARIANT_BASES,
    VARIANTS,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproduce.md"
BEGIN, END = "<!-- recipes: made by python -m tools.reproduce -->", "<!-- end of recipes -->"
NOT_FIGURES = ("name", "about", "data.root", "data.mixture", "data.texts", "folder")


def table() -> str:
    """Return the text between the marks; KeyError for a figure that published_runs.py says nothing about."""
    return "\n\n".join(_recipe(name, figures) for name, figures in PUBLISHED.items())


def recipes() -> set[str]:
    """Return the recipes of the repository that train a base of others."""
    found = (ROOT / "recipes").glob("*/*.toml")
    return {f"{path.parent.name}/{path.stem}" for path in found if path.parent.name not in ("mixtures", "nano")}


def write(page: Path = PAGE) -> None:
    """Put the table into the page."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


def _recipe(name: str, there: Mapping[str, Any] | None) -> str:
    path = ROOT / "recipes" / f"{name}.toml"
    heading = f"### recipes/{name}.toml"
    if there is None:
        return f"{heading}\n\nNobody has published such a run, so there is nothing to compare its figures with."
    rows = [_row(name, key, ours, there[key]) for key, ours in _figures(path).items()]
    for variant, changes in read_toml(path).get("variant", {}).items():
        for key, ours in changes.items():
            if key not in NOT_FIGURES and not (key == "model.base" and ours == there[key]):
                rows.append(_row(name, key, ours, _of_variant(name, variant, key), variant))
    head = ["| figure | here | published | |", "|---|---|---|---|"]
    return "\n".join([heading, "", *head, *rows])


def _of_variant(name: str, variant: str, key: str) -> Any:
    if key in VARIANTS[variant]:
        published = VARIANTS[variant][key]
        if key == "model.base" and variant == "mistral-7b" and not name.startswith("anchor"):
            return LLM2VEC_MISTRAL if name.startswith("llm2vec") else ECHO_MISTRAL
        return published
    if key == "model.base":
        return VARIANT_BASES[variant]
    raise KeyError(f"{name}, variant {variant}: {key}")


def _figures(path: Path) -> dict[str, Any]:
    """Return the figures that a recipe's file sets, by dotted name."""
    content = read(path).model_dump(exclude_unset=True)
    stages = {stage.pop("name"): stage for stage in content.pop("stage")}
    flat = dict(_flat({**content, "stage": stages}))
    return {key: value for key, value in flat.items() if _ends(key) not in NOT_FIGURES and key not in NOT_FIGURES}


def _ends(key: str) -> str:
    return ".".join(key.split(".")[-2:])


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}".lstrip("."))
    else:
        yield prefix, value


def _row(name: str, key: str, ours: Any, there: Any, variant: str = "") -> str:
    shown = f"{variant}: {key}" if variant else key
    if there == UNKNOWN:
        return f"| `{shown}` | {_said(ours)} | | unknown there |"
    if _plain(ours) == _plain(there):
        return f"| `{shown}` | {_said(ours)} | {_said(there)} | equal |"
    return f"| `{shown}` | {_said(ours)} | {_said(there)} | {_reason(name, key, ours)} |"


def _reason(name: str, key: str, ours: Any) -> str:
    for word in ("chatml", "matched"):
        if word in str(ours):
            return REASONS[word]
    for ending in (key, _ends(key), key.rsplit(".", 1)[-1]):
        if ending in REASONS:
            return REASONS[ending]
    raise KeyError(f"{name}: {key} is {ours!r} here, is another there, and published_runs.py has no reason")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    write()
