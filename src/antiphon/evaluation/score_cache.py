"""Scores on disk, each under a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon.errors import DataError
from antiphon.evaluation.scores import TaskScore, sample_from_dict, sample_to_dict, score_from_dict
from antiphon.files import clean, reason, write_whole

FORM = 2
"""Raised where the form or the meaning of what is kept changes."""

logger = logging.getLogger(__name__)


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the hash of what a score depends on."""
    return hashlib.sha256(json.dumps({"form": FORM, **parts}, sort_keys=True).encode()).hexdigest()


def read_score(folder: Path, key: str) -> TaskScore | None:
    """Return a kept score, None where there is none; one that is broken is told and made again."""
    path = _path(folder, key)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        sample, results = raw.pop("sample"), raw.pop("results")
        return score_from_dict(raw, None if sample is None else sample_from_dict(sample), results)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is no kept score (%s: %s); the task is run again.", path, type(error).__name__, error)
        return None


def write_score(folder: Path, key: str, score: TaskScore) -> None:
    """Keep a score; a reader sees all of it or nothing. DataError where the disk is full or not to be written to."""
    path = _path(folder, key)
    sample = None if score.sample is None else sample_to_dict(score.sample)
    raw = {**score.to_dict(), "sample": sample, "results": dict(score.results)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path.parent)
        write_whole(path, json.dumps(raw, default=float).encode())
    except OSError as error:
        raise DataError(f"{path} could not be written ({reason(error)}); make room, or name another cache.") from error


def _path(folder: Path, key: str) -> Path:
    return folder / "scores" / key[:2] / f"{key}.json"
