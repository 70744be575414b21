"""The embedded language model: small enough to ship, so that everything here runs where no model hub is at hand."""

from pathlib import Path

from antiphon.errors import ConfigError


def folder() -> Path:
    """Return the folder of the shipped model, in Hugging Face layout."""
    return Path(__file__).parent / "model"


def recipe_file(name: str) -> Path:
    """Return a recipe that trains it: baseline, anchor, anchor-echo or mntp; ConfigError for any other."""
    packaged, checkout = Path(__file__).parent / "recipes", Path(__file__).parents[3] / "recipes" / "nano"
    for place in (packaged, checkout):  # a wheel carries the repository's recipes/nano
        if (place / f"{name}.toml").exists():
            return place / f"{name}.toml"
    raise ConfigError(f"There is no recipe {name!r} for the embedded model; take baseline, anchor or anchor-echo.")
