"""A notebook in a kernel of Jupyter: bars that come to their end, and tables; nbclient and ipykernel are asked for."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).resolve().parents[1] / "src"
CELLS = {
    "build": "import antiphon\nmodel = antiphon.build('nano', max_tokens=48)",
    "data": """
from pathlib import Path
Path("sts.tsv").write_text("sentence1\\tsentence2\\tscore\\n" + "".join(
    f"sort {a} items\\tsort {b} items\\t{5 - abs(a - b)}\\n" for a in range(4) for b in range(4)))
Path("pairs.csv").write_text("query,positive\\n" + "".join(f"what is {n},It is {n}.\\n" for n in range(8)));""",
    "embed": "antiphon.embed(model, [f'sort a list of {n} items' for n in range(20)], 'vectors');",
    "scores": "scores = antiphon.evaluate(model, ['sts.tsv'], cache=False)\nscores",
    "comparison": "from dataclasses import replace\nantiphon.compare([scores, replace(scores, label='other')])",
    "plan": """
from antiphon.training import plan
from antiphon.training.recipe import read
plan(read({"name": "mine", "model": {"base": "nano", "max_tokens": 48},
           "data": {"sets": [{"name": "pairs", "source": "pairs.csv"}]},
           "stage": [{"name": "contrast", "loss": "contrastive", "steps": 2, "batch_size": 4}]}))""",
}
BARS = {"embed": r"embedding.*20\.0/20\.0", "scores": r"sts \(1 of 1\)"}
TABLES = {"scores": "sts", "comparison": "By task", "plan": "contrast"}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The notebook, executed."""
    pytest.importorskip("ipykernel", reason="without ipykernel there is no kernel to run a notebook in")
    nbclient = pytest.importorskip("nbclient", reason="without nbclient no notebook is executed")
    from nbformat.v4 import new_code_cell, new_notebook

    executed = new_notebook(cells=[new_code_cell(code, metadata={"name": name}) for name, code in CELLS.items()])
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    nbclient.NotebookClient(executed, timeout=400, kernel_name="python3", resources=place).execute(env=environment)
    return executed


def outputs(notebook, name):
    (cell,) = [cell for cell in notebook.cells if cell.metadata.name == name]
    return cell.outputs


def texts_of_bars(notebook, name):
    """What the bars of a cell say at the end: as widgets, or as text where there are none."""
    found = outputs(notebook, name)
    if find_spec("ipywidgets") is None:
        return "".join(one.text for one in found if one.output_type == "stream" and one.name == "stderr")
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    kind = "application/vnd.jupyter.widget-view+json"
    boxes = [states[one.data[kind]["model_id"]]["state"] for one in found if kind in one.get("data", {})]
    parts = [states[child.removeprefix("IPY_MODEL_")]["state"] for box in boxes for child in box["children"]]
    assert all(part["value"] == part["max"] and part["bar_style"] == "success" for part in parts if "max" in part)
    said = " ".join(part["value"] for part in parts if "max" not in part)
    return said.replace("\u2007", " ")  # the space that tqdm writes in widgets, as wide as a digit


@pytest.mark.parametrize("name", BARS)
def test_a_verb_shows_a_bar_that_comes_to_its_end(notebook, name):
    text = texts_of_bars(notebook, name)
    assert re.search(BARS[name], text), text
    assert "100%" in text
    assert not [one for one in outputs(notebook, name) if one.get("name") == "stdout"]


@pytest.mark.parametrize("name", TABLES)
def test_a_result_is_a_table_and_the_same_as_text(notebook, name):
    (result,) = [one for one in outputs(notebook, name) if one.output_type == "execute_result"]
    assert "<table>" in result.data["text/html"]
    assert TABLES[name] in result.data["text/html"]
    assert TABLES[name] in result.data["text/plain"]
    assert "array(" not in result.data["text/plain"]


def test_nothing_else_is_printed(notebook):
    found = [one for name in CELLS if name not in BARS for one in outputs(notebook, name)]
    told = [one.text for one in found if one.output_type == "stream" and one.text.strip()]
    # loading has its own bar, and tqdm says at import that it found no ipywidgets
    assert not [text for text in told if "Loading weights" not in text and "ipywidgets" not in text]
