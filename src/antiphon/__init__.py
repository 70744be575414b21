"""Antiphon turns a causal language model into a text embedder."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from antiphon.corpus.embed import embed
    from antiphon.corpus.mining import mine
    from antiphon.corpus.searching import search
    from antiphon.data import mixtures as mixtures
    from antiphon.data import pairs as pairs
    from antiphon.encoding import Encoder
    from antiphon.encoding.calibrate import calibrate
    from antiphon.encoding.layer_choice import choose_layers
    from antiphon.evaluation import compare, evaluate
    from antiphon.exporting import export
    from antiphon.model import parity as parity
    from antiphon.model.build import build
    from antiphon.model.checkpoint import load, save
    from antiphon.model.opening import ModelOptions, open_model
    from antiphon.training import losses as losses
    from antiphon.training import train

# Nothing is imported before it is used: `antiphon --help` must not wait for torch.
_HOMES = {
    "Encoder": "antiphon.encoding",
    "ModelOptions": "antiphon.model.opening",
    "build": "antiphon.model.build",
    "calibrate": "antiphon.encoding.calibrate",
    "choose_layers": "antiphon.encoding.layer_choice",
    "compare": "antiphon.evaluation",
    "embed": "antiphon.corpus.embed",
    "evaluate": "antiphon.evaluation",
    "export": "antiphon.exporting",
    "load": "antiphon.model.checkpoint",
    "mine": "antiphon.corpus.mining",
    "open_model": "antiphon.model.opening",
    "save": "antiphon.model.checkpoint",
    "search": "antiphon.corpus.searching",
    "train": "antiphon.training",
}
_SHORT = {
    "losses": "antiphon.training.losses",
    "mixtures": "antiphon.data.mixtures",
    "pairs": "antiphon.data.pairs",
    "parity": "antiphon.model.parity",
}
"""Modules that are importable from the top as well: guides and code of users name them so."""

__all__ = [
    "Encoder",
    "ModelOptions",
    "build",
    "calibrate",
    "choose_layers",
    "compare",
    "embed",
    "evaluate",
    "export",
    "load",
    "mine",
    "open_model",
    "save",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name in _SHORT:
        return import_module(_SHORT[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*__all__, *_SHORT, "__version__"])


class _ShortNames(MetaPathFinder, Loader):
    """Imports `antiphon.parity` and what lies below it as the very modules that stand in their rooms."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return a spec for a short name, None for any other."""
        package, _, rest = fullname.partition(".")
        known = package == __name__ and rest.partition(".")[0] in _SHORT
        return ModuleSpec(fullname, self, is_package=True) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the real module in the place of the empty one."""
        short, _, rest = module.__name__.removeprefix(f"{__name__}.").partition(".")
        sys.modules[module.__name__] = import_module(".".join(filter(None, (_SHORT[short], rest))))


if not any(type(finder).__qualname__ == _ShortNames.__qualname__ for finder in sys.meta_path):
    # first, or the search along the real package's path would load its files a second time under the short name
    sys.meta_path.insert(0, _ShortNames())
