"""The model that made a folder of vectors: opened again, or told apart from another, by what the folder says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from antiphon.corpus.index import MANIFEST, Index, open_index
from antiphon.errors import AntiphonError, ConfigError, DataError
from antiphon.model.fingerprint import fingerprint
from antiphon.model.origin import Origin

PLACES = ("base", "revision")
"""What may differ where the vectors do not: the same model has been moved."""


def reopened(folder: Path) -> SentenceTransformer:
    """Open the model that a folder names as its maker; whether it still is, `check_maker` tells.

    Raises ConfigError for a source that is no such folder, DataError where the folder does not say what made it, or
    where that cannot be opened.
    """
    if not (folder / MANIFEST).exists():
        raise ConfigError(f"{folder} is no folder that embed wrote, so it does not say which model to take; name one.")
    index = open_index(folder)
    if not index.settings.origin or not index.settings.origin["base"]:
        raise DataError(f"{folder} does not say which model made it; name the model by --model.")
    origin = _origin(index.settings.origin, folder)
    try:
        return origin.open()
    except AntiphonError as error:
        raise DataError(f"{folder} was made by {origin.base}, which cannot be opened: {error}") from error


def check_maker(index: Index, model: SentenceTransformer) -> None:
    """Raise a DataError, naming the settings that differ, unless the model made the vectors of the folder."""
    here = fingerprint(model)
    if index.settings.model == here:
        return
    differing = list(differences(index.settings.origin, Origin.of(model).to_dict()))
    why = "; ".join(differing) if differing else f"fingerprint {index.settings.model:.16}, this one's is {here:.16}"
    raise DataError(
        f"{index.folder} was embedded by another model ({why}); search with the model that made it, or embed the "
        "source anew."
    )


def differences(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what is different in how two models read, in words; nothing where one of them is not known."""
    if before is None or now is None:
        return
    for name in now:
        if name not in PLACES and before.get(name) != now[name]:
            yield f"{name} is {_shown(before.get(name))} there and {_shown(now[name])} here"


def _shown(value: Any) -> str:
    return f"{value.get('name', value) if isinstance(value, Mapping) else value!r:.80}"


def _origin(content: Mapping[str, Any], folder: Path) -> Origin:
    try:
        return Origin(**content)
    except TypeError as error:
        raise DataError(
            f"{folder / MANIFEST} does not say which model made it ({error}); name one by --model."
        ) from None
