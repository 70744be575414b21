"""Every block of the README and the guides is executed, with a model folder of one's own; links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from conftest import make_base

from antiphon.serving.sockets import bind

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PORT = re.compile(r"\b876\d\b")
"""Ports that servers of the pages listen on; whoever else listens there would answer in their place."""
NANO = re.compile(r"\bnano\b")
FOLDER = "my-model"
"""A folder with a small Llama of random weights: it takes the place of nano, as the pages tell their readers to do."""
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks that are run: `make` is what runs this, and benchmarks take their time.

    Blocks of one kind that follow one another are one session, as they are for who reads them.
    """
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    run = [each for each in found if not any(word in each[1] for word in ("make ", "git clone", "benchmarks/"))]
    return [(kind, "\n".join(code for _, code in each)) for kind, each in groupby(run, key=itemgetter(0))]


def free_port() -> str:
    """A port that nobody listens on."""
    with bind("127.0.0.1", 0) as listener:
        return str(listener.getsockname()[1])


def run_blocks(page: Path, place: Path, programs: Path, *, model: str | None = None) -> None:
    """Run the blocks of a page in a folder, with another model in nano's place where one is named."""
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ports: dict[str, str] = {}
    for kind, text in blocks(page):
        written = PORT.sub(lambda found: ports.setdefault(found[0], free_port()), text)
        code = written if model is None else NANO.sub(model, written)
        command = [str(programs / "python"), "-c", code] if kind == "python" else ["bash", "-euc", code]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{code}\n{done.stderr[-2000:]}"


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A language model's folder with room for two copies of a text."""
    return make_base(tmp_path_factory.mktemp("model") / FOLDER, max_position_embeddings=2048)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_with_a_model_of_ones_own(page, tmp_path, programs, small_model):
    shutil.copytree(small_model, tmp_path / FOLDER)
    run_blocks(page, tmp_path, programs, model=FOLDER)


@pytest.mark.slow
def test_the_readme_runs_as_it_stands(tmp_path):
    run_blocks(ROOT / "README.md", tmp_path, Path(sys.executable).parent)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_readme_names_the_templates_that_there_are():
    from antiphon.text.template import TEMPLATES

    text = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)) == set(TEMPLATES)


def test_the_version_stands_in_the_changelog():
    import antiphon

    assert f"## [{antiphon.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
