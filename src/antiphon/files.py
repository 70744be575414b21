"""Files of a user: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

PARTIAL = ".partial"
"""The ending of a file that is being written."""


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file under another name and move it into place, so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
