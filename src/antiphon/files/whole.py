"""A file that is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from antiphon.files.locks import OURS, lock, remove_left

PARTIAL = ".partial"
"""The ending of a file that is being written."""


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file under another name and move it into place, so that it is there whole or not at all.

    A symlink is followed. Raises OSError where that cannot be; then the file is as it was.
    """
    target = path.resolve()
    temporary, descriptor = _partial(target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
            os.replace(temporary, target)  # while it is locked: whoever cleans does not take it for a leftover
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def clean(folder: Path) -> None:
    """Remove the files that killed runs left half-written in a folder; those of running ones stay."""
    for left in folder.glob(f"{OURS}-*{PARTIAL}"):
        remove_left(left)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: OSError) -> str:
    """Return what the system says of a file that could not be written, without number and path."""
    return error.strerror or str(error)


def _partial(folder: Path) -> tuple[Path, int]:
    """Return a new file, locked while it is open."""
    while True:
        path = folder / f"{OURS}-{os.urandom(8).hex()}{PARTIAL}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)  # it was taken for a leftover between the two lines
