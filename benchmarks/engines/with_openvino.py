"""OpenVINO, by the backend of sentence-transformers, on the portable folders: as it is, and with positions mended.

    python benchmarks/engines/with_openvino.py WORK

optimum-intel exports a decoder with an input `position_ids` and never gives it: the graph reads memory that holds
anything. Mended, the graph counts them in the mask itself. A row each also for a small Llama of random weights that is
none of ours (`control`), by sentence-transformers' own mean pooling.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
from harness import QUIET, arguments, cells_of, environment, figures, row, version_in, wanted

PINS = ("sentence-transformers[openvino]==6.2.0", "optimum-intel==2.2.0", "transformers==5.5.4", "torch==2.13.0+cpu")
PRECISIONS = ("f32", "bf16")
MEND = """
import openvino.opset13 as ops

def mend(model):
    "Let the graph count positions in the attention mask, where optimum-intel gives it none."
    engine = model[0].model
    graph = engine.model
    (positions,) = [one for one in graph.get_parameters() if one.output(0).get_any_name() == "position_ids"]
    counted = ops.cum_sum(graph.input("attention_mask"), ops.constant(1))
    counted = ops.subtract(counted, ops.constant(1, dtype="int64"))
    for reader in list(positions.output(0).get_target_inputs()):
        reader.replace_source_output(counted.output(0))
    graph.remove_parameter(positions)
    graph.validate_nodes_and_infer_types()
    engine.input_names.pop("position_ids", None)
    engine.request = None
"""
CODE = (
    MEND
    + """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer

folder, texts, out, precision = sys.argv[1:]
texts = json.load(open(texts))
settings = {"ov_config": {"INFERENCE_PRECISION_HINT": precision}}

def made(folder):
    return SentenceTransformer(folder, device="cpu", backend="openvino", model_kwargs=dict(settings))

def vectors(model, texts):
    return np.concatenate([model.encode([text], show_progress_bar=False) for text in texts])

model = made(folder)
found = {"as it is": vectors(model, texts[:8])}
mend(model)
found["mended"] = vectors(model, texts)
model.save_pretrained(out + ".folder")
found["mended, saved, read, in batches"] = made(out + ".folder").encode(texts, batch_size=8, show_progress_bar=False)
np.savez(out, **found)
"""
)
"""A program, for its environment."""
CONTROL = """
import json, sys
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

tokenizer, folder, texts, out = sys.argv[1:]
read = AutoTokenizer.from_pretrained(tokenizer)
torch.manual_seed(0)
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
LlamaModel(LlamaConfig(vocab_size=len(read), **sizes)).save_pretrained(folder)
read.save_pretrained(folder)
np.save(out, SentenceTransformer(folder, device="cpu").encode(json.load(open(texts)), show_progress_bar=False))
"""
"""A program, for its environment: a model that is none of ours, and torch's vectors of it."""


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "openvino", PINS, finish=finish)
    python, texts_file = str(folder / "bin" / "python"), given.work / "texts.json"
    versions = f"sentence-transformers {version_in(folder, 'sentence-transformers')}, optimum-intel, openvino "
    versions += version_in(folder, "openvino")
    cells = list(cells_of(given))
    if cells and not given.base:
        base, right = given.work / "control", given.work / "control.npy"
        run(python, CONTROL, cells[0][2] / "portable", base, texts_file, right)
        texts = json.loads(texts_file.read_text())
        cells.append(("control", "", base, texts, np.load(right)))
    for base_name, form, place, _, right_vectors in cells:
        portable = place if base_name == "control" else place / "portable"
        for precision in wanted(given, PRECISIONS):
            out = given.work / f"openvino-{base_name}-{form}-{precision}.npz"
            about = {"engine": "OpenVINO", "version": versions, "base": base_name, "form": form, "dtype": precision}
            run(python, CODE, portable, texts_file, out, precision)
            for how, vectors in np.load(out).items():
                found = {number: one for number, one in enumerate(vectors) if np.isfinite(one).all()}
                lost = [f"text {number}: not finite" for number in range(len(vectors)) if number not in found]
                row(given.work, **about, how=how, **figures(found, lost, right_vectors))


def run(python: str, code: str, *given: object) -> None:
    """Run a program in its environment; CalledProcessError where it fails, with what it said on the screen."""
    command = [python, "-W", "ignore", "-c", code, *map(str, given)]
    subprocess.run(command, env={**os.environ, **QUIET}, check=True)


def finish(folder: Path) -> None:
    """Take off what optimum brings along for another build of torch, where it cannot be imported."""
    subprocess.run([folder / "bin" / "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)


if __name__ == "__main__":
    main()
