"""infinity on the portable folders.

python benchmarks/engines/infinity.py WORK
"""

from __future__ import annotations

from harness import PORT, arguments, as_said, asked, cells_of, doctor, environment, figures, row, started, version_in

from antiphon.model.server import Server

PINS = (
    "infinity-emb[server,torch]==0.0.78",
    "numpy<2",
    "sentence-transformers==3.4.1",
    "transformers==4.57.1",
    "torch==2.13.0+cpu",
    "optimum<2",
    "typer<0.13",
    "click<8.2",
)
FLAGS = "--engine torch --device cpu --dtype float32 --no-bettertransformer --no-model-warmup"


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "infinity", PINS)
    for base, form, place, texts, right in cells_of(given):
        command = [str(folder / "bin" / "infinity_emb"), "v2", "--model-id", str(place / "portable"), *FLAGS.split()]
        command += ["--port", str(PORT)]
        url = f"http://127.0.0.1:{PORT}"
        cells = {"engine": "infinity", "version": version_in(folder, "infinity-emb"), "base": base, "form": form}
        log = given.work / f"infinity-{base}-{form}.log"
        with started(command, alive=f"{url}/health", log=log, variables={"INFINITY_ANONYMOUS_USAGE_STATS": "0"}):
            found, refused = asked(Server(url), as_said(form, texts))
            verdict = "" if given.no_doctor else doctor(url, place / "portable", form)
        start = f"infinity_emb v2 --model-id FOLDER {FLAGS}"
        row(given.work, **cells, dtype="float32", start=start, **figures(found, refused, right), doctor=verdict)


if __name__ == "__main__":
    main()
