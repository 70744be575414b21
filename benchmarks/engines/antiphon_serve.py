"""Our own server on the saved folders, in each dtype: its figures, and what the doctor says of it.

python benchmarks/engines/antiphon_serve.py WORK
"""

from __future__ import annotations

import sys

from harness import PORT, arguments, asked, cells_of, figures, row, started, verdicts

import antiphon
from antiphon.model.server import Server

DTYPES = ("float32", "bfloat16", "float16")


def main() -> None:
    given = arguments(__doc__)
    url = f"http://127.0.0.1:{PORT}"
    for base, form, place, texts, right in cells_of(given):
        for dtype in (one for one in DTYPES if given.type is None or one in given.type):
            saved, log = place / "saved", given.work / f"antiphon-{base}-{form}-{dtype}.log"
            command = [sys.executable, "-m", "antiphon.cli", "serve", str(saved), "--dtype", dtype]
            cells = {"engine": "antiphon serve", "version": antiphon.__version__, "base": base, "form": form}
            cells |= {"dtype": dtype, "start": f"antiphon serve SAVED --dtype {dtype}"}
            with started([*command, "--port", str(PORT)], alive=f"{url}/health", log=log):
                found, refused = asked(Server(url), texts)
                row(given.work, **cells, **figures(found, refused, right), **verdicts(given, url, saved))


if __name__ == "__main__":
    main()
