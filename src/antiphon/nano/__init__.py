"""The embedded language model: small enough to ship, so that everything here runs where no model hub is at hand."""

from pathlib import Path


def folder() -> Path:
    """Return the folder of the shipped model, in Hugging Face layout."""
    return Path(__file__).parent / "model"
