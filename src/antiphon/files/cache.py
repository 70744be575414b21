"""The user's cache: what can be made again, kept so that it need not be."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from antiphon.files.whole import write_whole

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the user's cache: $ANTIPHON_CACHE, else antiphon in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("ANTIPHON_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "antiphon"


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache and the folders above it; a cache that cannot be written to is no reason to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        logger.info("%s could not be written (%s).", path, error)
