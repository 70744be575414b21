"""What the engines' scripts share: an environment of their own, a server that starts and stops, the check, the row.

The check is numpy's: max |a - b| over the texts, by the median distance between the right vectors, all of length 1.
Beside it `antiphon doctor` says its verdict, with the folder as what is right.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import DataError
from antiphon.model.server import Server

PORT = int(os.environ.get("ENGINE_PORT", "8765"))
PATIENCE = 2400
PROMPTS = {"classical": "Query: "}
"""What stands before every text, by form; a portable folder keeps it in a file that vLLM and infinity do not read."""
DTYPES = ("float32", "bfloat16", "float16")
QUIET = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def arguments(about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="the folder that folders.py wrote; environments and results go there")
    parser.add_argument("--base", action="append", help="only this one; may be repeated")
    parser.add_argument("--form", action="append", help="only this one; may be repeated")
    parser.add_argument("--type", action="append", help="only these weights or dtypes; may be repeated")
    parser.add_argument("--no-doctor", action="store_true", help="the figures alone")
    return parser.parse_args()


def environment(work: Path, name: str, pins: Sequence[str], *, finish: Callable[[Path], None] | None = None) -> Path:
    """Return the folder of an environment with exactly these packages named; made once."""
    folder = work / "environments" / name
    mark = folder / "made.json"
    if not mark.exists() or json.loads(mark.read_text()) != list(pins):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *pins], check=True)
        if finish is not None:
            finish(folder)
        mark.write_text(json.dumps(list(pins)))
    return folder


@contextmanager
def started(
    command: Sequence[str], *, alive: str, log: Path, variables: dict[str, str] | None = None
) -> Iterator[None]:
    """Start a server and give control when `alive` answers; it is ended behind the block, whatever happens."""
    with log.open("w") as written:
        server = subprocess.Popen(
            command, env={**os.environ, **QUIET, **(variables or {})}, stdout=written, stderr=subprocess.STDOUT
        )
        try:
            wait(server, alive, log)
            yield
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait(server: subprocess.Popen[bytes], alive: str, log: Path) -> None:
    for _ in range(PATIENCE):
        if server.poll() is not None:
            raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-1500:]}")
        try:
            with urllib.request.urlopen(alive, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise RuntimeError(f"it was not there after {PATIENCE} s; see {log}")


def asked(server: Server, inputs: Sequence[Any]) -> tuple[dict[int, Any], list[str]]:
    """Return the vectors by the number of the text, one text a request, and what was refused."""
    found, refused = {}, []
    for number, one in enumerate(inputs):
        try:
            found[number] = server.encode([one])[0]
        except DataError as error:
            refused.append(f"text {number}: {str(error).split('answered', 1)[-1][:160]}")
    return found, refused


def error(found: dict[int, Any], right: Any) -> tuple[float, float]:
    """Return the largest and the median error against spread."""
    unit = right / np.linalg.norm(right, axis=1, keepdims=True)
    apart = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    spread = np.median(apart[~np.eye(len(unit), dtype=bool)])
    errors = [np.linalg.norm(one / np.linalg.norm(one) - unit[number]) / spread for number, one in found.items()]
    return float(max(errors)), float(np.median(errors))


def doctor(url: str, model: Path | None, form: str = "") -> str:
    """Return what `antiphon doctor` says: its verdict, and what it says of the model where one is given.

    Of a form whose prompt clients send the model is asked without it, as the engine is.
    """
    from antiphon.cli import main

    command = ["doctor", url]
    command += [] if model is None else ["--model", str(model), "--dtype", "float32"]
    command += ["--prompt", ""] if model is not None and form in PROMPTS else []
    said = StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main(command)
    lines = [line for line in said.getvalue().splitlines() if line.startswith(("right", "WRONG", "note       model"))]
    return " / ".join(lines) or said.getvalue()[-300:]


def served(
    given: argparse.Namespace,
    command: Sequence[str],
    *,
    log: str,
    folder: Path,
    form: str,
    texts: Sequence[str],
    variables: dict[str, str] | None = None,
) -> tuple[dict[int, Any], list[str], dict[str, str]]:
    """Start a server of a folder; return its vectors, what it refused, and the doctor's verdicts."""
    url = f"http://127.0.0.1:{PORT}"
    whole, place = [*command, "--port", str(PORT)], given.work / f"{log}.log"
    with started(whole, alive=f"{url}/health", log=place, variables=variables):
        found, refused = asked(Server(url), as_said(form, texts))
        return found, refused, verdicts(given, url, folder, form)


def verdicts(given: argparse.Namespace, url: str, folder: Path, form: str = "") -> dict[str, str]:
    """Return what the doctor says beside a folder and alone, unless it is not asked."""
    return {} if given.no_doctor else {"doctor": doctor(url, folder, form), "doctor_alone": doctor(url, None)}


def row(work: Path, **cells: object) -> None:
    """Print a row and keep it."""
    print(json.dumps(cells), flush=True)
    with (work / "results.jsonl").open("a") as results:
        results.write(json.dumps(cells) + "\n")


def figures(found: dict[int, Any], refused: Sequence[str], right: Any) -> dict[str, object]:
    largest, median = error(found, right) if found else (float("nan"), float("nan"))
    return {"texts": len(found), "error": largest, "median": median, "refused": list(refused)}


def figures_without_outer_space(
    found: dict[int, Any], refused: Sequence[str], right: Any, texts: Sequence[str]
) -> dict[str, object]:
    """Return the figures of an engine that strips texts: of those without outer white space, and of the others."""
    plain = {number: one for number, one in found.items() if texts[number] == texts[number].strip()}
    spaced = {number: one for number, one in found.items() if number not in plain}
    return {**figures(plain, refused, right), "with_outer_space": figures(spaced, [], right)["error"]}


def cells_of(given: argparse.Namespace) -> Iterator[tuple[str, str, Path, list[str], Any]]:
    """Yield base, form, folder, texts and right vectors of every cell that is asked for."""
    texts = json.loads((given.work / "texts.json").read_text())
    for right in sorted(given.work.glob("*/*/right.npy")):
        base, form = right.parent.parent.name, right.parent.name
        if (given.base is None or base in given.base) and (given.form is None or form in given.form):
            yield base, form, right.parent, texts, np.load(right)


def wanted(given: argparse.Namespace, types: Iterable[str]) -> list[str]:
    """Return those of the weights or dtypes that are asked for."""
    return [name for name in types if given.type is None or name in given.type]


def as_said(form: str, texts: Sequence[str]) -> list[str]:
    """Return what a client sends to an engine that says no prompt: the form's own before each text."""
    return [f"{PROMPTS.get(form, '')}{text}" for text in texts]


def version_in(folder: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([folder / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
