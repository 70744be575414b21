"""The package's types are there for who uses it: a program of theirs under `mypy --strict`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import antiphon

PROGRAM = """
from pathlib import Path

import numpy as np

import antiphon
from antiphon.evaluation import Scores

model = antiphon.build("nano", "eol", pooling="last", dtype="float32", max_tokens=64)
print(model.encode(["one", "two"]).shape)
encoder = antiphon.Encoder(model, attention="sdpa", linear="plain")
print(np.asarray(encoder.encode_query(["one", "two"])).mean(), encoder.encode("one", precision="int8"))

folder: Path = antiphon.embed(model, ["one", "two"], "vectors", precision="int8", side="document", progress=True)
for hit in antiphon.search(folder, "one", model=model, top=3, mode="vector"):
    print(hit.id.upper(), hit.score + 1, hit.text.upper())

scores: Scores = antiphon.evaluate(model, ["pairs.tsv"], limit=10, cache=False, own_document="keep", progress=False)
print(scores.average + scores["pairs"].main, antiphon.compare([scores, "runs/other"]).tasks[0].upper())

calibrated = antiphon.calibrate(model, method="center", side="query", on_progress=lambda done: print(done + 1))
again = antiphon.load(antiphon.save(calibrated, "saved"), dtype="bfloat16")
print(antiphon.export(again, to="onnx", out="graph").parity.equal)
print(antiphon.open_model("nano", antiphon.ModelOptions(pooling="mean")).max_seq_length)
run: Path = antiphon.train("recipe.toml", on_step=lambda line: print(line.upper()))

antiphon.build("nano", pooling="average")  # type: ignore[arg-type]
antiphon.build("nano", dtype="fp32")  # type: ignore[arg-type]
antiphon.embed(model, ["one"], "vectors", side="doc")  # type: ignore[arg-type]
antiphon.search(folder, "one", mode="words")  # type: ignore[arg-type]
antiphon.export(again, to="tensorrt", out="graph")  # type: ignore[arg-type]
antiphon.Encoder(model, attention="flash")  # type: ignore[arg-type]
antiphon.evaluate(model, "pairs.tsv").averages  # type: ignore[attr-defined]
"""


def test_the_package_says_that_it_is_typed():
    assert files("antiphon").joinpath("py.typed").is_file()


# read from the sources of torch and transformers it would take minutes; our own words are what is asked here
LIBRARIES = ("torch", "transformers", "sentence_transformers", "datasets", "mteb", "peft", "numpy", "pandas", "pyarrow")
SETTINGS = "\n".join(
    ["[mypy]", "strict = true", "follow_imports = silent"]
    + [f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = true" for name in LIBRARIES]
)


@pytest.mark.slow
def test_a_users_program_is_checked_against_our_types(tmp_path):
    """Every wrong call in it is marked, and a mark that mypy does not need is an error of its own."""
    command = [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path / 'cache'}", "program.py"]
    environment = {**os.environ, "MYPYPATH": str(Path(antiphon.__file__).parents[1])}
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
