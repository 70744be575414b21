"""infinity on the portable folders.

python benchmarks/engines/infinity.py WORK
"""

from __future__ import annotations

from harness import (
    PORT,
    arguments,
    as_said,
    asked,
    cells_of,
    doctor,
    environment,
    figures_without_outer_space,
    row,
    started,
    version_in,
    wanted,
)

from antiphon.model.server import Server

PINS = (
    "infinity-emb[server,torch]==0.0.78",
    "numpy<2",
    "sentence-transformers==3.4.1",
    "transformers==4.48.3",
    "torch==2.13.0+cpu",
    "optimum<2",
    "typer<0.13",
    "click<8.2",
)
FLAGS = "--engine torch --device cpu --no-bettertransformer --no-model-warmup"
DTYPES = {"float32": ("echo", "classical", "calibrated"), "bfloat16": ("echo",), "float16": ("echo",)}


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "infinity", PINS)
    for base, form, place, texts, right in cells_of(given):
        for dtype in wanted(given, form, DTYPES):
            flags = f"--dtype {dtype} {FLAGS}"
            program = str(folder / "bin" / "infinity_emb")
            command = [program, "v2", "--model-id", str(place / "portable"), *flags.split(), "--port", str(PORT)]
            url = f"http://127.0.0.1:{PORT}"
            cells = {"engine": "infinity", "version": version_in(folder, "infinity-emb"), "base": base, "form": form}
            cells |= {"dtype": dtype, "start": f"infinity_emb v2 --model-id FOLDER {flags}"}
            log = given.work / f"infinity-{base}-{form}-{dtype}.log"
            with started(command, alive=f"{url}/health", log=log, variables={"INFINITY_ANONYMOUS_USAGE_STATS": "0"}):
                found, refused = asked(Server(url), as_said(form, texts))
                verdict = "" if given.no_doctor else doctor(url, place / "portable", form)
            row(given.work, **cells, **figures_without_outer_space(found, refused, right, texts), doctor=verdict)


if __name__ == "__main__":
    main()
