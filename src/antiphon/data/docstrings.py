"""Docstrings as text: every Python carries a corpus, and pairs (a first line and the rest of it) to search.

Source files are parsed, never imported, so nothing of theirs runs.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

# Tests and vendored copies repeat what stands elsewhere; idlelib and lib2to3 are programs, not a library; site-packages
# stands inside the standard library's folder and is no part of it.
SKIPPED_FOLDERS = frozenset(
    {"tests", "test", "testing", "_vendor", "vendor", "idlelib", "lib2to3", "__pycache__", "turtledemo"}
    | {"site-packages"}
)


@dataclass(frozen=True)
class Docstring:
    """One docstring and where it stands."""

    name: str
    """Dotted name, such as `textwrap.TextWrapper.fill`."""
    text: str
    """The docstring as `inspect.cleandoc` leaves it."""


@dataclass(frozen=True)
class DocstringPair:
    """The summary line of a docstring (the query) and what follows it (the document)."""

    name: str
    summary: str
    body: str


def standard_library() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def site_packages() -> Path:
    """Return the folder into which packages are installed."""
    return Path(sysconfig.get_paths()["purelib"])


def fingerprint(text: str) -> bytes:
    """Return a hash that two docstrings share where they differ in white space only."""
    return hashlib.sha1(re.sub(r"\s+", " ", text).strip().encode()).digest()


def harvest(root: Path, *, minimum: int = 60, without: Iterable[bytes] = ()) -> Iterator[Docstring]:
    """Yield the docstrings of at least `minimum` characters below `root`, by path, each text once.

    `without` holds fingerprints that count as seen already: a test set that must not be trained on, say.
    """
    seen = set(without)
    for path in sorted(_sources(root)):
        module = path.relative_to(root).with_suffix("")
        for docstring in _in_file(path, ".".join(module.parts).removesuffix(".__init__")):
            key = fingerprint(docstring.text)
            if len(docstring.text) >= minimum and key not in seen:
                seen.add(key)
                yield docstring


def _sources(root: Path) -> Iterator[Path]:
    """Yield the source files below a folder, without looking into those that are skipped."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED_FOLDERS]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


@cache
def of_standard_library() -> tuple[Docstring, ...]:
    """Return the docstrings of the running Python's standard library, parsed once a process: it takes seconds."""
    return tuple(harvest(standard_library()))


def _in_file(path: Path, module: str) -> Iterator[Docstring]:
    """Yield every docstring of one source file; a file that is no Python 3 of this version yields none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's sources are not news
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    yield from _below(tree, module)


def _below(node: ast.AST, name: str) -> Iterator[Docstring]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        # a lone surrogate is legal in a literal and cannot be written to any file
        if text and not re.search(r"[\ud800-\udfff\x00]", text):
            yield Docstring(name, text)
        for child in node.body:
            child_name = getattr(child, "name", None)
            if isinstance(child_name, str):
                yield from _below(child, f"{name}.{child_name}")


def pairs(docstrings: Iterable[Docstring], *, minimum: int = 80) -> Iterator[DocstringPair]:
    """Split docstrings into summary and body, keeping those with both, each summary once.

    A summary that also opens the body (a signature repeated, say) would make the search trivial: such pairs go.
    """
    seen: set[str] = set()
    for docstring in docstrings:
        summary, _, body = docstring.text.partition("\n\n")
        summary, body = " ".join(summary.split()), body.strip()
        key = summary.lower()
        if len(summary.split()) < 4 or len(summary) > 200 or len(body) < minimum:
            continue
        if key in seen or key in " ".join(body.lower().split()):
            continue
        seen.add(key)
        yield DocstringPair(docstring.name, summary, body)


def evenly(items: Sequence[Item], limit: int) -> list[Item]:
    """Return at most `limit` items at even distances, so that every part of a library is there."""
    if len(items) <= limit:
        return list(items)
    return [items[n * len(items) // limit] for n in range(limit)]
