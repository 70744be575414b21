"""A program, never imported: embed texts with onnxruntime and tokenizer.json, and nothing else but numpy.

    python onnx_encode.py REQUEST.json

The request names `calls` (folder and file), `texts` and `out`, a .npz file with an array for every call.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

BATCH = 8


def encode(folder: Path, file: str, texts: list[str]) -> Any:
    """Return (N, D) vectors."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    wanted = [given.name for given in session.get_inputs()]
    rows = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer.encode_batch(texts[start : start + BATCH])
        inputs = {
            "input_ids": [one.ids for one in batch],
            "attention_mask": [one.attention_mask for one in batch],
            "token_type_ids": [one.type_ids for one in batch],
        }
        fed = {name: np.array(inputs[name], dtype=np.int64) for name in wanted}
        rows.append(session.run(["sentence_embedding"], fed)[0])
    return np.concatenate(rows)


def main(request: dict[str, Any]) -> None:
    """Answer a request."""
    vectors = {
        name: encode(Path(call["folder"]), call["file"], request["texts"]) for name, call in request["calls"].items()
    }
    np.savez(request["out"], **vectors)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
