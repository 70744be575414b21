"""Start another engine on a portable folder and compare its vectors with sentence-transformers' own.

    python benchmarks/engines/parity.py infinity FOLDER --program /path/to/infinity_emb
    python benchmarks/engines/parity.py vllm FOLDER --program /path/to/vllm
    python benchmarks/engines/parity.py tei FOLDER --program /path/to/text-embeddings-router

Each engine lives in an environment of its own: infinity-emb needs numpy < 2
(`pip install 'infinity-emb[server,torch]'`), vLLM pins torch. The program ends with 1 where the vectors differ, and
names the cause. Texts that the folder cuts are left out of the verdict where the engine refuses them, which is said.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import antiphon
from antiphon.model.causes import diagnose
from antiphon.model.server import Server

PORT = 8765
# engine: arguments behind the program, and what stands before /embeddings and /health
ENGINES = {
    "infinity": (
        "v2 --model-id {folder} --engine torch --device cpu --dtype float32 --no-bettertransformer --no-model-warmup "
        "--port {port}",
        "",
    ),
    "vllm": ("serve {folder} --runner pooling --dtype float32 --port {port}", "/v1"),
    "tei": ("--model-id {folder} --dtype float32 --auto-truncate --port {port}", "/v1"),
}
PATIENCE = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder")
    parser.add_argument("--program", required=True)
    given = parser.parse_args()
    arguments, path = ENGINES[given.engine]
    command = [given.program, *arguments.format(folder=given.folder, port=PORT).split()]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as engine:
        try:
            if not ready(engine):
                print(f"{given.engine} did not start:", engine.stderr.read().decode()[-2000:])
                return 1
            model = antiphon.load(given.folder, device="cpu", dtype="float32")
            found = diagnose(
                model, Server(f"http://127.0.0.1:{PORT}{path}/embeddings"), names=("the folder", given.engine)
            )
        finally:
            engine.terminate()
    print(f"{given.engine}: {found.parity}")
    for cause in found.causes:
        print(f"cause: {cause.topic}: {cause.sentence}")
    for note in found.notes:
        print(f"note: {note}")
    return 0 if found.parity.equal else 1


def ready(engine: subprocess.Popen[bytes]) -> bool:
    """Wait for the engine to answer."""
    for _ in range(PATIENCE):
        if engine.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    return False


if __name__ == "__main__":
    sys.exit(main())
