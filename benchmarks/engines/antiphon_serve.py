"""Our own server on the saved folders, in each dtype: its figures, and what the doctor says of it.

python benchmarks/engines/antiphon_serve.py WORK
"""

from __future__ import annotations

import sys

from harness import DTYPES, arguments, cells_of, figures, row, served, wanted

import antiphon


def main() -> None:
    given = arguments(__doc__)
    for base, form, place, texts, right in cells_of(given):
        saved = place / "saved"
        for dtype in wanted(given, DTYPES):
            command = [sys.executable, "-m", "antiphon.cli", "serve", str(saved), "--dtype", dtype]
            # a saved folder says its prompt itself, so the form, whose prompt clients send to others, is not told
            found, refused, said = served(
                given, command, log=f"antiphon-{base}-{form}-{dtype}", folder=saved, form="", texts=texts
            )
            cells = {"engine": "antiphon serve", "version": antiphon.__version__, "base": base, "form": form}
            cells |= {"dtype": dtype, "start": f"antiphon serve SAVED --dtype {dtype}"}
            row(given.work, **cells, **figures(found, refused, right), **said)


if __name__ == "__main__":
    main()
