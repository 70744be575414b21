"""The user's cache: what can be made again, kept so that it need not be."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache: $ANTIPHON_CACHE, else antiphon in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("ANTIPHON_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "antiphon"
