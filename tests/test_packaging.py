"""What is imported is declared, what is declared is locked, and the lock holds releases that stand together."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IN_EXTRA = {
    "serving": ["serve"],
    "exporting": ["onnx", "gguf"],
    "training": ["gpu"],
    "corpus": ["scale"],
    "data": ["scale"],
}
"""The room that may import what extras bring."""
NOT_IN_TESTS = {"liger_kernel", "lancedb", "ray"}
"""What no environment of the tests has: a GPU's kernel, and what antiphon[scale] brings."""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported() -> dict[str, set[str]]:
    """Packages of others by the rooms that import them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "antiphon").rglob("*.py"):
        room = path.relative_to(ROOT / "src" / "antiphon").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for module in modules:
                package = module.partition(".")[0]
                if package not in sys.stdlib_module_names and package != "antiphon":
                    found.setdefault(package, set()).add(room)
    return found


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_everything_imported_is_declared():
    homes = packages_distributions()
    for package, rooms in imported().items():
        if package not in homes:
            assert package in NOT_IN_TESTS
            continue
        distributions = {canonicalize_name(name) for name in homes[package]}
        for room in rooms:
            extras = [line for name in IN_EXTRA.get(room, []) for line in EXTRAS[name]]
            declared = names([*PROJECT["dependencies"], *extras])
            assert distributions & declared, f"{room} imports {package}, which no requirement of it brings"


def test_the_lock_holds_every_requirement_within_its_range():
    versions = {canonicalize_name(name): version for name, version in locked().items()}
    lines = [*PROJECT["dependencies"], *(line for name in ("serve", "onnx", "dev") for line in EXTRAS[name])]
    bad = [line for line in (ROOT / "requirements" / "known-bad.txt").read_text().splitlines() if line[0] != "#"]
    for line in [*lines, *(line.partition("#")[0] for line in bad)]:
        wanted = Requirement(line.strip())
        if canonicalize_name(wanted.name) != "antiphon":
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), line


def test_the_lock_is_exact_and_has_no_builds_of_a_machine():
    assert all(re.fullmatch(r"[\w.!]+", version) for version in locked().values())
    assert len(locked()) > 100


@pytest.mark.parametrize("command", ["setup", "lock", "canary", "oldest"])
def test_the_makefile_has_the_targets(command):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^[\w ]*\b{command}\b[\w ]*:", text, flags=re.MULTILINE)
    assert "--constraint requirements/lock.txt" in text
