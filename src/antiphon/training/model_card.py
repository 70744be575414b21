"""The model card of a published folder: what the model is, how it was made, what it reached, and the base's licence."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import load_file_path

from antiphon import __version__, compat, nano
from antiphon.model.calibration import calibration_of
from antiphon.model.checkpoint import RUN
from antiphon.model.description import describe
from antiphon.training.record import RunRecord, read

CARD = "README.md"
_LEVELS = 3
"""How many folders above a checkpoint the record of its run may lie."""
_LICENCE = re.compile(r"\A---\n.*?^license:\s*(\S+)\s*$.*?^---\s*$", re.MULTILINE | re.DOTALL)


def card(model: SentenceTransformer, source: str, use: Sequence[str], *, run: RunRecord | None = None) -> str:
    """Return the card of a folder in Markdown with the hub's front matter; what is not known is said to be so.

    `source` is the name under which the model was opened; where that is a training run's folder or lies in one, and no
    `run` is given, its record is read. `use` are the sections on use, which the form writes.
    """
    run = run or run_of(source)
    base = run.stages[0].base if run is not None and run.stages else base_of(model)
    licence = getattr(model[0], "base_licence", None) or licence_of(base)
    front = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: feature-extraction",
        "tags:",
        "- sentence-transformers",
        "- antiphon",
        *([f"license: {licence}"] if licence else []),
        *([f"base_model: {base}"] if is_hub_id(base) else []),
        "---",
    ]
    sections = [_what(model, base), *use, *_how(run), _licence_note(base, licence)]
    return "\n".join(front) + "\n\n" + "\n\n".join(sections) + "\n"


def write_card(folder: Path, model: SentenceTransformer, source: str, use: Sequence[str]) -> None:
    """Write a folder's card where the hub looks for it."""
    (folder / CARD).write_text(card(model, source, use), encoding="utf-8")


def licence_of(base: str) -> str | None:
    """Return the licence that the base's own card states, by the hub's short name."""
    if base in ("nano", str(nano.folder())):
        return "apache-2.0"
    file = load_file_path(base, "README.md", local_files_only=True)
    found = _LICENCE.search(Path(file).read_text(encoding="utf-8")) if file else None
    return found.group(1) if found else None


def run_of(source: str) -> RunRecord | None:
    """Return the record of the training run that a folder came out of, if it did."""
    if not source or not Path(source).exists():
        return None
    folder = Path(source).resolve()
    for place in (folder, *list(folder.parents)[:_LEVELS]):
        if (place / RUN).exists():
            return read(place)
    return None


def base_of(model: SentenceTransformer) -> str:
    """Return the name under which the base of a model was loaded."""
    return compat.source_of(model[0].config) or "unknown"


def _calibration(model: SentenceTransformer) -> list[str]:
    """Return the line on what the vectors were calibrated by and on, none where they were not."""
    known = calibration_of(model)
    if known is None:
        return []
    return [
        f"- Calibration: `{known.method}`, fitted without labels on {known.rows} texts ({known.texts}, read as "
        f"{known.side}; SHA-256 `{known.digest}`), a `Dense` behind the pooling."
    ]


def is_hub_id(base: str) -> bool:
    """Return whether a base's name is a hub id and no folder."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", base)) and not Path(base).exists()


def _shown(base: str) -> str:
    """Return a base's name without the folders of the machine that it lay on."""
    return "antiphon/nano" if base in ("nano", str(nano.folder())) else base if is_hub_id(base) else Path(base).name


def _what(model: SentenceTransformer, base: str) -> str:
    shown = describe(model, "A text.")
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    lines = [
        f"# {_shown(base)} as a text embedder",
        "",
        f"- Base: {_shown(base)}; vectors of {shown.dimensions} dimensions, compared by cosine.",
        f"- Template: `{shown.template}`; pooling: {shown.pooling}; attention: {shown.attention.split(',')[0]}.",
        f"- Length: at most {shown.max_tokens} tokens with one copy of the text; weights: {shown.dtype}.",
        *_calibration(model),
        *(f"- Prompt `{name}`: {json.dumps(prompt, ensure_ascii=False)}" for name, prompt in prompts.items()),
    ]
    return "\n".join(lines)


def _how(run: RunRecord | None) -> list[str]:
    """Return the sections on lineage, results and recipe."""
    if run is None:
        return ["## Training\n\nNone is recorded: the weights are those of the base."]
    rows = [
        f"| {stage.name} | {stage.loss} | {_shown(stage.base)} | {_data(stage.data)} | {stage.steps} | "
        f"{stage.seconds / 60:.1f} |"
        for stage in run.stages
    ]
    made = f"Seed {run.seed}, {run.processes} process(es); " + ", ".join(f"{k} {v}" for k, v in run.versions.items())
    table = ["| stage | loss | from | data | steps | minutes |", "|---|---|---|---|---|---|", *rows]
    lineage = "\n".join([*table, "", made + "."])
    results = [
        f"- {stage.name}, step {entry['step']}: {name} {value:.4f}"
        for stage in run.stages
        for entry in stage.history[-1:]
        for name, value in entry.items()
        if isinstance(value, float) and name not in ("epoch", "learning_rate")
    ]
    recipe = json.dumps(run.recipe, indent=1, ensure_ascii=False)
    return [
        f"## Training: {run.name}\n\n{lineage}",
        "## Results\n\nThe last figures of the training log:\n\n" + "\n".join(results or ["- none were recorded"]),
        f"## Recipe\n\n```json\n{recipe}\n```",
    ]


def _data(sets: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one.get('set', 'data')} ({one.get('rows', '?')} rows)" for one in sets) or "none"


def _licence_note(base: str, licence: str | None) -> str:
    licence_line = (
        f"The base is under `{licence}`, and so are these weights as far as they are its own."
        if licence
        else "The base's card was not at hand or states no licence: look it up before you publish these weights."
    )
    return f"## Licence\n\n{licence_line} Written by antiphon {__version__}."
