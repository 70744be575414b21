"""llama.cpp's server on the GGUF files of echo and classical: with token ids, with strings, and behind our own server.

    python benchmarks/engines/llama_cpp.py WORK

`xllamacpp` is llama.cpp with its server, compiled; `llama-server` of the same build takes the flags that a row names.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import PORT, arguments, asked, cells_of, environment, figures, row, started, verdicts, version_in, wanted
from tokenizers import Tokenizer

import antiphon
from antiphon.model.server import Server

PINS = ("xllamacpp==2026.10.11549", "openai==3.57.0", "numpy")
TYPES = {"f16": "gguf", "bf16": "gguf-bf16", "q8_0": "gguf-q8_0"}
STRINGS = {
    "echo": "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}",
    "classical": "Query: {text}",
}
"""What each form says, as a string."""
CACHE = "--cache-type-k f32 --cache-type-v f32 --flash-attn off"
SERVE = """
import sys, time
import xllamacpp
file, port, longest = sys.argv[1:]
settings = xllamacpp.CommonParams()
settings.model.path, settings.port, settings.embedding = file, int(port), True
settings.n_ctx = settings.n_batch = settings.n_ubatch = int(longest)
settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
while True:
    time.sleep(60)
"""
"""A program, for its environment: llama-server --embeddings, the pooling as the file says."""
ASK = """
import json, sys
import openai
url, texts, out = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key="unused")
name, rows = client.models.list().data[0].id, []
for text in json.load(open(texts)):
    try:
        answer = client.embeddings.create(model=name, input=[text], extra_body={"input_type": "query"})
        rows.append(answer.data[0].embedding)
    except openai.BadRequestError as error:
        rows.append(str(error))
json.dump(rows, open(out, "w"))
"""
"""A program, for its environment: OpenAI's own client, a text a request."""


def main() -> None:
    given = arguments(__doc__)
    folder = environment(given.work, "llamacpp", PINS)
    for _, form, place, texts, right in cells_of(given):
        if form == "calibrated":  # which is refused: a GGUF file has no place for it
            continue
        for weights in wanted(given, TYPES):
            to = TYPES[weights]
            written = place / to
            if not written.exists():
                antiphon.export(str(place / "saved"), to=to, out=written)
            cell(given, folder, written, weights, texts, right)


def cell(given: argparse.Namespace, folder: Path, written: Path, weights: str, texts: list[str], right: Any) -> None:
    base, form = written.parts[-3:-1]
    tokenizer = Tokenizer.from_file(str(min(written.rglob("tokenizer.json"), key=lambda one: "query" not in one.parts)))
    ids = [tokenizer.encode(text).ids for text in texts]
    strings = [STRINGS[form].format(text=text) for text in texts]
    longest = str(max(map(len, ids)) + 8)
    python, log = str(folder / "bin" / "python"), given.work / f"llamacpp-{base}-{form}-{weights}.log"
    command = [python, "-c", SERVE, str(written / f"model-{weights}.gguf"), str(PORT), longest]
    url, saved = f"http://127.0.0.1:{PORT}", written.parent / "saved"
    cells = {"engine": "llama.cpp", "version": version_in(folder, "xllamacpp"), "base": base, "form": form}
    flags = f"--embeddings --ctx-size {longest} --batch-size {longest} --ubatch-size {longest} {CACHE}"
    cells |= {"dtype": weights, "start": f"llama-server -m model-{weights}.gguf {flags}"}
    with started(command, alive=f"{url}/health", log=log):
        server = Server(url)
        row(given.work, **cells, sent="token ids", **figures(*asked(server, ids), right))
        row(given.work, **cells, sent="strings", **figures(*asked(server, strings), right))
        if said := verdicts(given, url, saved):
            row(given.work, **cells, **said)
        if weights == "f16":
            outcome = behind_ours(given, python, saved, url)
            row(given.work, **cells, sent="texts, to antiphon serve --upstream", **figures(*outcome, right))


def behind_ours(given: argparse.Namespace, python: str, saved: Path, url: str) -> tuple[dict[int, Any], list[str]]:
    """Return what OpenAI's client gets of `antiphon serve SAVED --upstream URL`, and what was refused."""
    ours, out = f"http://127.0.0.1:{PORT + 1}", given.work / "behind.json"
    command = [sys.executable, "-m", "antiphon.cli", "serve", str(saved), "--upstream", url, "--port", str(PORT + 1)]
    with started(command, alive=f"{ours}/health", log=given.work / "behind.log"):
        subprocess.run([python, "-c", ASK, f"{ours}/v1", str(given.work / "texts.json"), str(out)], check=True)
    rows = json.loads(out.read_text())
    found = {number: np.array(row) for number, row in enumerate(rows) if isinstance(row, list)}
    return found, [f"text {number}: {row}" for number, row in enumerate(rows) if isinstance(row, str)]


if __name__ == "__main__":
    main()
