"""Write the folders that engines are started on, and the vectors that they should give.

    python benchmarks/engines/folders.py WORK --base nano --base smollm2=path/to/SmolLM2-135M.gguf

For each base: `echo` (echo-rewrite), `classical` and `calibrated` (echo-rewrite, standardised on docstrings), all
pooling the last token, as portable folders with weights in float32; the GGUF files of echo and classical; `texts.json`,
and the model's own vectors of those texts in `right.npy`, computed by sentence-transformers in float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from kinds_of_text import texts

import antiphon
from antiphon.encoding.calibrate import shipped_texts
from antiphon.model.parity import encode

MOST = 256
CALIBRATED_ON = 200
FORMS = {"echo": "echo-rewrite", "classical": "classical", "calibrated": "echo-rewrite"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--base", action="append", required=True, help="nano, or NAME=FOLDER_OR_FILE")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    (given.work / "texts.json").write_text(json.dumps(texts()))
    for base in given.base:
        name, _, source = base.partition("=")
        for form, template in FORMS.items():
            write(given.work / name / form, source or name, form, template)


def write(place: Path, source: str, form: str, template: str) -> None:
    """Write one folder and its right vectors, unless they are there."""
    if (place / "right.npy").exists():
        return
    model = antiphon.build(source, template, pooling="last", max_tokens=MOST, dtype="float32")
    if form == "calibrated":
        model = antiphon.calibrate(model, shipped_texts()[:CALIBRATED_ON])
    done = antiphon.export(model, to="portable", out=place / "portable")
    antiphon.save(model, place / "saved")
    np.save(place / "right.npy", encode(model, texts(), batch_size=8))
    print(place, done.parity, f"--max-model-len {done.longest}", flush=True)


if __name__ == "__main__":
    main()
