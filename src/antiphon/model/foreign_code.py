"""What a model's folder may not bring: code, classes that fetch or import some, and paths that lead out of it.

Nothing that a folder names is imported and nobody is asked whether it may be: such a folder is refused, or read by
transformers' own class of that name, which is said.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import transformers
from sentence_transformers.util import load_file_path
from transformers import CONFIG_MAPPING

from antiphon.errors import CheckpointError, ModelError
from antiphon.modules import MODULES

STOCK = "sentence_transformers."
IMPORTING = frozenset({"WordEmbeddings", "BoW", "Router", "Asym", "CLIPModel"})
"""Sentence-transformers' modules whose own settings name classes to import or folders to read."""
SETTINGS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "sentence_bert_config.json",
    "adapter_config.json",
)
TORCH = "torch."
IMPLEMENTATION = "_implementation"
"""How the names of settings end that choose an implementation; one with a slash is a repository that is run."""

logger = logging.getLogger(__name__)


def check_code(source: str) -> None:
    """Look through the settings of a folder or hub id before anything reads them.

    Raises ModelError where the model cannot be had without code of its own, or where kernels of a repository would be
    fetched and run. An `auto_map` beside a class that transformers has is named in the log and passed over.
    """
    for name in SETTINGS:
        settings = _settings(name, source)
        if settings is None:
            continue
        for key, value in _entries(settings):
            if key.endswith(IMPLEMENTATION) and isinstance(value, str) and "/" in value:
                raise ModelError(
                    f"{name} of {source} sets {key} to {value[:80]!r}, a repository whose code would be run; it was "
                    "not loaded. Take the line out, and transformers' own implementation is used."
                )
        if settings.get("auto_map"):
            _check_auto_map(source, name, settings)


def check_modules(source: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise a CheckpointError unless modules.json names only classes that may be loaded, in folders of its own."""
    for entry in entries:
        name, path = entry["type"], entry.get("path", "")
        if not isinstance(name, str) or not isinstance(path, str):
            raise CheckpointError(f"modules.json of {source} lists {dict(entry)!r:.80}, which is no module.")
        if not name.startswith(STOCK) and name not in MODULES:
            raise CheckpointError(
                f"{source} wants the class {name[:100]}, which is neither sentence-transformers' nor antiphon's, so it "
                "was not loaded; if you trust its author, load it with SentenceTransformer(path, "
                "trust_remote_code=True)."
            )
        if name.rpartition(".")[2] in IMPORTING:
            raise CheckpointError(
                f"{source} wants sentence-transformers' {name.rpartition('.')[2]}, whose settings name classes to "
                "import, so it was not loaded; the embedders of antiphon have a Transformer instead."
            )
        check_inside(path, f"modules.json of {source}")
        _check_activation(source, path)


def check_inside(path: str, where: str) -> None:
    """Raise a CheckpointError for a path that a folder's file names and that leads out of that folder."""
    kinds = (PurePosixPath(path), PureWindowsPath(path))
    if any(kind.is_absolute() or kind.anchor or ".." in kind.parts for kind in kinds):
        raise CheckpointError(f"{where} names the path {path[:80]!r}, which leads out of its folder; it was not read.")


def _check_activation(source: str, path: str) -> None:
    """Raise a CheckpointError for a layer's activation that is not torch's: another would be taken without a word."""
    settings = _settings(str(Path(path) / "config.json"), source) if path else None
    activation = str((settings or {}).get("activation_function", TORCH))
    if not activation.startswith(TORCH):
        raise CheckpointError(
            f"{path}/config.json of {source} wants the activation {activation[:80]}, which is not torch's, so it was "
            "not loaded; name one of torch.nn's."
        )


def _check_auto_map(source: str, name: str, settings: Mapping[str, Any]) -> None:
    named = next(iter(_strings(settings["auto_map"])), "code")
    known = {
        "adapter_config.json": False,  # peft knows no such thing
        "processor_config.json": False,  # texts need no processor: one that is named is one of the folder's own
        "preprocessor_config.json": False,
        "config.json": settings.get("model_type") in CONFIG_MAPPING,
        "tokenizer_config.json": hasattr(transformers, str(settings.get("tokenizer_class", "AutoTokenizer"))),
    }
    if not known.get(name, True):
        raise ModelError(
            f"{name} of {source} asks for code of its own ({named[:80]}), which antiphon does not run, and "
            "transformers has no class for it. Where it is not needed, take auto_map out of that file."
        )
    logger.warning(
        "%s of %s asks for code of its own (%s); it is not run, and transformers' own class reads the folder.",
        name,
        source,
        named[:80],
    )


def _settings(name: str, source: str) -> dict[str, Any] | None:
    """Return a file of settings; None where there is none or where it cannot be read, which its reader will say."""
    file = load_file_path(source, name)
    if file is None:
        return None
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of settings, of those within them too."""
    waiting: list[Any] = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
            # one implementation for each part of a model: a table under the setting's name
            waiting.extend(
                {key: inner}
                for key, table in value.items()
                if key.endswith(IMPLEMENTATION) and isinstance(table, dict)
                for inner in table.values()
            )
        elif isinstance(value, list):
            waiting.extend(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
