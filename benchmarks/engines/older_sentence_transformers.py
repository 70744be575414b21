"""sentence-transformers 3.4, 4.1 and 5.1 on the portable folders, in a process each.

python benchmarks/engines/older_sentence_transformers.py WORK
"""

from __future__ import annotations

import os
import subprocess

import numpy as np
from harness import QUIET, arguments, cells_of, environment, figures_without_outer_space, row, version_in

TORCH = "torch==2.13.0+cpu"
PINS = {
    "st34": ("sentence-transformers==3.4.1", "transformers==4.46.3", "numpy<2", TORCH),
    "st41": ("sentence-transformers==4.1.0", "transformers==4.57.1", TORCH),
    "st51": ("sentence-transformers==5.1.2", "transformers==4.57.1", TORCH),
}
CODE = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
folder, texts, out = sys.argv[1:]
model = SentenceTransformer(folder, device="cpu")
texts = json.load(open(texts))
np.save(out, np.concatenate([model.encode([text], show_progress_bar=False) for text in texts]))
"""


def main() -> None:
    given = arguments(__doc__)
    for name, pins in PINS.items():
        folder = environment(given.work, name, pins)
        for base, form, place, texts, right in cells_of(given):
            out = given.work / f"{name}-{base}-{form}.npy"
            python, portable = folder / "bin" / "python", place / "portable"
            command = [python, "-c", CODE, portable, given.work / "texts.json", out]
            done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True)
            cells = {"engine": "sentence-transformers", "base": base, "form": form, "dtype": "float32"}
            cells |= {"version": version_in(folder, "sentence-transformers"), "start": "SentenceTransformer(FOLDER)"}
            cells |= {"with": f"transformers {version_in(folder, 'transformers')}"}
            if done.returncode:
                row(given.work, **cells, failed=done.stderr.strip().splitlines()[-1][:300])
                continue
            found = dict(enumerate(np.load(out)))
            row(given.work, **cells, **figures_without_outer_space(found, [], right, texts))


if __name__ == "__main__":
    main()
