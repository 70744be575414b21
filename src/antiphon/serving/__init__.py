"""An OpenAI-compatible server of one model, with a page to try it on. Needs the extra `serve`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from antiphon.errors import ConfigError

NEEDED = ("fastapi", "uvicorn", "orjson", "prometheus_client")


def check_installed() -> None:
    """Raise a ConfigError unless the packages of the extra are there; the modules beside this one import them."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Serving needs {', '.join(missing)}, which this Python has not; pip install 'antiphon[serve]'."
        )


def served_name(model: str) -> str:
    """Return the id of a model for clients: what it was opened by, or the name of its folder."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model
