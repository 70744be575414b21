"""Scores on disk, each under a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon.evaluation.scores import TaskScore, sample_from_dict, sample_to_dict, score_from_dict

FORM = 1
"""Raised where the form or the meaning of what is kept changes."""


def default_folder() -> Path:
    """Return the user's cache: $ANTIPHON_CACHE, else antiphon in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("ANTIPHON_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "antiphon"


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the hash of what a score depends on."""
    return hashlib.sha256(json.dumps({"form": FORM, **parts}, sort_keys=True).encode()).hexdigest()


def read_score(folder: Path, key: str) -> TaskScore | None:
    """Return a kept score, None where there is none."""
    path = _path(folder, key)
    if not path.exists():
        return None
    raw = json.loads(path.read_text(encoding="utf-8"))
    sample = raw.pop("sample")
    return score_from_dict(raw, None if sample is None else sample_from_dict(sample))


def write_score(folder: Path, key: str, score: TaskScore) -> None:
    """Keep a score; a reader sees all of it or nothing."""
    path = _path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = {**score.to_dict(), "sample": None if score.sample is None else sample_to_dict(score.sample)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".score-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(raw, file, default=float)
    os.replace(temporary, path)


def _path(folder: Path, key: str) -> Path:
    return folder / "scores" / key[:2] / f"{key}.json"
