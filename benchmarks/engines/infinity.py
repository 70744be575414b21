"""infinity on the portable folders.

python benchmarks/engines/infinity.py WORK
"""

from __future__ import annotations

from harness import (
    DTYPES,
    arguments,
    cells_of,
    environment,
    figures_without_outer_space,
    row,
    served,
    version_in,
    wanted,
)

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
VARIABLES = {"INFINITY_ANONYMOUS_USAGE_STATS": "0"}


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "infinity", PINS)
    program = str(folder / "bin" / "infinity_emb")
    for base, form, place, texts, right in cells_of(given):
        portable = place / "portable"
        for dtype in wanted(given, DTYPES):
            flags = f"--dtype {dtype} {FLAGS}"
            command = [program, "v2", "--model-id", str(portable), *flags.split()]
            found, refused, said = served(
                given, command, log=f"infinity-{base}-{form}-{dtype}",
                folder=portable, form=form, texts=texts, variables=VARIABLES,
            )  # fmt: skip
            cells = {"engine": "infinity", "version": version_in(folder, "infinity-emb"), "base": base, "form": form}
            cells |= {"dtype": dtype, "start": f"infinity_emb v2 --model-id FOLDER {flags}"}
            row(given.work, **cells, **figures_without_outer_space(found, refused, right, texts), **said)


if __name__ == "__main__":
    main()
