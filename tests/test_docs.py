"""Every block of the README and the guides is executed; links lead somewhere; nothing speaks of one machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FROM_NOTHING = ("README",)
"""Pages whose programs start as a user's do, six seconds of imports each; those of the others have them done."""
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks that are run: `make` is what runs this, and benchmarks take their time.

    Blocks of one kind that follow one another are one session, as they are for who reads them.
    """
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    run = [each for each in found if not any(word in each[1] for word in ("make ", "git clone", "benchmarks/"))]
    return [(kind, "\n".join(code for _, code in each)) for kind, each in groupby(run, key=itemgetter(0))]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, tmp_path, request):
    cold = page.stem in FROM_NOTHING
    first = Path(sys.executable).parent if cold else request.getfixturevalue("programs")
    path = os.pathsep.join([str(first), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for kind, code in blocks(page):
        command = [str(first / "python"), "-c", code] if kind == "python" else ["bash", "-euc", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{code}\n{done.stderr[-2000:]}"


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
