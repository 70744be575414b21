"""Folders that a later run of the same kind may replace, and nothing else may be lost in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antiphon.errors import DataError


def is_free(target: Path) -> bool:
    """Return whether nothing stands there, or an empty folder."""
    return not target.exists() or (target.is_dir() and not any(target.iterdir()))


def check_place(target: Path, mark: str) -> None:
    """Raise a DataError where a folder stands that has not the file `mark`."""
    if not is_free(target) and not (target / mark).exists():
        raise DataError(f"{target} exists and holds no {mark}; nothing was written. Name another folder.")


@contextmanager
def replaced(target: Path, mark: str) -> Iterator[Path]:
    """Give a folder to fill, which stands at `target` when the block ends; one that has the file `mark` makes way.

    Raises DataError where anything else stands there, or where it cannot be written; then nothing has changed.
    """
    check_place(target, mark)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise DataError(f"{target} could not be written ({error}).") from error
    try:
        filled = work / "new"
        filled.mkdir()
        yield filled
        if target.exists():
            target.replace(work / "old")
        filled.replace(target)
    except OSError as error:
        raise DataError(f"{target} could not be written ({error}).") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
