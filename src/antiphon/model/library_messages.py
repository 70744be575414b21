"""What the libraries below may say while ours work: their bars where somebody types, their reports and hints never.

They speak of what is settled here: that a decoder takes no head, which prompt a model says by itself. What is wrong
with weights or settings is an error of ours.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging


def is_interactive() -> bool:
    """Return whether somebody types what is run: in a notebook, at a prompt, or after a script under python -i."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or (shell is not None and shell() is not None)


def quiet() -> None:
    """Silence load reports, hints and bars of the libraries for the whole process, as a command does.

    Bars of downloads stay as they are: they show on a terminal alone, where somebody waits for gigabytes.
    """
    transformers_logging.set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    _switch(transformers_logging.disable_progress_bar)


@contextmanager
def hushed(*, bars: bool | None = None) -> Iterator[None]:
    """Silence the libraries while the block runs, then let them speak as before; a level that was chosen stands.

    `bars` says whether bars of loading and writing weights may show; without it they do in interactive use.
    """
    level, verbosity = logging.getLogger("sentence_transformers").level, transformers_logging.get_verbosity()
    shown = transformers_logging.is_progress_bar_enabled()
    if verbosity == logging.WARNING:  # what nobody chose
        transformers_logging.set_verbosity_error()
    if level == logging.NOTSET:
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    if shown and not (is_interactive() if bars is None else bars):
        _switch(transformers_logging.disable_progress_bar)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        logging.getLogger("sentence_transformers").setLevel(level)
        if shown:
            _switch(transformers_logging.enable_progress_bar)


def _switch(bars: Callable[[], None]) -> None:
    """Call transformers' switch of its bars, which turns those of downloads with them, and turn these back."""
    disabled = are_progress_bars_disabled()
    bars()
    if disabled != are_progress_bars_disabled():
        (disable_progress_bars if disabled else enable_progress_bars)()
