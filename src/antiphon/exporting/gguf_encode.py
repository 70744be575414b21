"""A program, never imported: embed texts with a GGUF file as transformers reads it, and the ids of tokenizer.json.

    python gguf_encode.py REQUEST.json

The request names `calls` (folder of tokenizer.json, and file), `texts` and `out`, a .npz file with an array for every
call. Pooling is what the file says; vectors are not normalised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, PoolingType
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel


def opened(file: Path) -> tuple[Any, str]:
    """Return the decoder in float32, and the name of the pooling."""
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
    architecture = fields["general.architecture"]
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    if hasattr(config, "head_dim"):  # which transformers takes from the file for some families only
        config.head_dim = int(fields[f"{architecture}.attention.key_length"])
    model = AutoModel.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, config=config, trust_remote_code=False
    ).eval()
    factors = next((one.data for one in reader.tensors if one.name == "rope_freqs.weight"), None)
    if factors is not None:  # which transformers passes over
        model.rotary_emb.inv_freq /= torch.tensor(np.array(factors))
    return model, PoolingType(fields[f"{architecture}.pooling_type"]).name


def encode(model: Any, pooling: str, tokenizer: Tokenizer, texts: list[str]) -> Any:
    """Return (N, D) vectors, one text at a time."""
    rows = []
    with torch.inference_mode():
        for text in texts:
            states_TD = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
            rows.append({"LAST": states_TD[-1], "CLS": states_TD[0], "MEAN": states_TD.mean(dim=0)}[pooling].numpy())
    return np.stack(rows)


def main(request: dict[str, Any]) -> None:
    """Answer a request."""
    models: dict[str, tuple[Any, str]] = {}
    vectors = {}
    for name, call in request["calls"].items():
        if call["file"] not in models:
            models[call["file"]] = opened(Path(call["file"]))
        tokenizer = Tokenizer.from_file(str(Path(call["folder"], "tokenizer.json")))
        vectors[name] = encode(*models[call["file"]], tokenizer, request["texts"])
    np.savez(request["out"], **vectors)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
