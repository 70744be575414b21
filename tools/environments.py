"""Environments to run the tests in: `python -m tools.environments lock | canary | oldest`.

lock    resolves the package's ranges in a fresh environment and writes requirements/lock.txt, every version exact.
canary  the newest releases that the registry gives, the whole suite, a line for each file that fails.
oldest  the lower bounds of pyproject.toml, the quick tests, the same lines.

Environments are made anew in .cache/environments.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
ENVIRONMENTS = ROOT / ".cache" / "environments"
HEAD = """\
# Exact versions of everything that `make setup` installs; made by `make lock` on Python {python}, Linux, CPU.
# torch for CUDA pins the libraries of its own, which are not listed here.
"""
WORKERS = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")


def lock() -> int:
    """Write requirements/lock.txt."""
    python = made("lock")
    install(python, "--constraint", str(REQUIREMENTS / "known-bad.txt"))
    frozen = run(python, "-m", "pip", "freeze", "--exclude-editable").stdout.splitlines()
    # a build of one's own for a machine, such as 2.13.0+cpu, is no version that an index has
    exact = sorted((re.sub(r"\+[\w.]+$", "", line) for line in frozen if "==" in line), key=str.lower)
    text = HEAD.format(python=".".join(map(str, sys.version_info[:2]))) + "\n".join(exact) + "\n"
    (REQUIREMENTS / "lock.txt").write_text(text, encoding="utf-8")
    print(f"wrote requirements/lock.txt, {len(exact)} packages")
    return 0


def canary() -> int:
    """Run the whole suite on the newest releases."""
    python = made("canary")
    install(python, "--upgrade", "--upgrade-strategy", "eager")
    return tested(python, "canary")


def oldest() -> int:
    """Run the quick tests at the lower bounds."""
    python = made("oldest")
    bounds = ENVIRONMENTS / "oldest.txt"
    bounds.write_text("\n".join(lower_bounds()) + "\n", encoding="utf-8")
    install(python, "--constraint", str(bounds))
    # old releases use names of each other that newer ones deprecate, which is no news of ours
    quiet = ("-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning")
    return tested(python, "oldest", "-m", "not slow", *quiet)


def lower_bounds() -> list[str]:
    """Return the lowest versions that pyproject.toml allows of what the package imports; tools of tests are free."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for name in extras if name not in ("dev", "gpu") for line in extras[name]),
    ]
    found = (re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", line) for line in wanted)
    return [f"{match[1]}=={match[2]}" for match in found if match]


def made(name: str) -> Path:
    """Return the Python of a new, empty environment."""
    folder = ENVIRONMENTS / name
    venv.create(folder, clear=True, with_pip=True)
    return folder / "bin" / "python"


def install(python: Path, *options: str) -> None:
    """Install the package with its development extra into an environment."""
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f"{ROOT}[dev]", *options)


def tested(python: Path, name: str, *options: str) -> int:
    """Run the tests and print the versions that matter and a line for each file with failures; return pytest's code."""
    report = ENVIRONMENTS / f"{name}.xml"
    done = subprocess.run([python, "-m", "pytest", *WORKERS, f"--junitxml={report}", *options], cwd=ROOT, check=False)
    names = ("torch", "transformers", "sentence-transformers", "peft", "mteb", "tokenizers", "numpy")
    versions = run(python, "-c", f"from importlib.metadata import version as v; print(*map(v, {names}))").stdout.split()
    print(f"{name}: " + ", ".join(f"{one} {two}" for one, two in zip(names, versions, strict=True)))
    for file, count in sorted(failures(report).items()):
        print(f"{name}: {count} failed in {file}")
    return done.returncode


def failures(report: Path) -> dict[str, int]:
    """Return how many tests failed, by test file, from pytest's XML."""
    counts: dict[str, int] = {}
    for case in xml.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            file = case.get("classname", "?")
            counts[file] = counts.get(file, 0) + 1
    return counts


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an environment's Python and return what it said; its errors go to the terminal."""
    return subprocess.run([python, *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)


COMMANDS = {"lock": lock, "canary": canary, "oldest": oldest}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]]())
