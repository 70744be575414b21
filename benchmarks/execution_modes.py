"""In which mode each model runs, how far its vectors are from float32, and how far sentence-transformers' own are.

    python benchmarks/execution_modes.py [MODEL ...] [--dtype bfloat16]
        [--modes default sdpa matmul compiled prepacked float8]

Without MODEL: nano, the real models that `make real` brought, and a tiny random model of each family. One table: the
error of the farthest text and the root of the mean square, in the median distance between two texts (docs/design.md).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

import antiphon
from antiphon import nano
from antiphon.encoding.check import Distance
from antiphon.encoding.support import FAMILIES

REAL = Path(".cache/real")
AS_STORED = {"widen": False}
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "sdpa": {**AS_STORED, "attention": "sdpa"},
    "matmul": {**AS_STORED, "attention": "matmul"},
    "varlen": {**AS_STORED, "attention": "varlen"},
    "compiled": {**AS_STORED, "compile": True},
    "prepacked": {**AS_STORED, "linear": "prepacked"},
    "compiled, prepacked": {**AS_STORED, "compile": True, "linear": "prepacked"},
    "float8": {"linear": "float8"},
}
"""The Encoder's settings by name; "default" is what it takes by itself."""
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
OWN_HEADS = ("phi", "gpt_neox")
"""Families whose heads share the width evenly."""


def models(named: list[str], folder: Path) -> Iterator[tuple[str, str | Path]]:
    """Yield names and sources."""
    if named:
        yield from ((Path(name).stem, name) for name in named)
        return
    yield "nano", "nano"
    yield from ((file.parent.name, file) for file in sorted(REAL.glob("*/*.gguf")))
    for family in sorted(FAMILIES):
        yield f"tiny {family}", tiny(folder / family, family)


def tiny(folder: Path, family: str) -> Path:
    """Write a random model of a family, with nano's tokenizer."""
    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(nano.folder())
    sizes = {key: value for key, value in SIZES.items() if not (key == "head_dim" and family in OWN_HEADS)}
    config = AutoConfig.for_model(family, vocab_size=len(words), pad_token_id=None, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def taken(encoder: antiphon.Encoder) -> str:
    """Return in a word or two how an Encoder runs."""
    if encoder.reason is not None:
        return "model.encode"
    if encoder.fault is not None:
        return "plain layers"
    return encoder.mode


def row(name: str, mode: str, model: SentenceTransformer) -> str:
    encoder = antiphon.Encoder(model, **MODES[mode])
    check = encoder.check

    def shown(distance: Distance | None) -> str:
        return "-" if distance is None else f"{distance.largest:.1e}, {distance.typical:.1e}"

    why = "" if encoder.fault is None else f" {encoder.fault}"
    return f"| {name} | {mode} | {taken(encoder)} | {shown(check.distance)} | {shown(check.theirs)} |{why}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device")
    parser.add_argument("--template", default="classical")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["default", "sdpa", "matmul"])
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()
    logging.getLogger("antiphon").setLevel(logging.ERROR)
    print(f"{options.dtype}, {options.template}, {options.pooling}; the farthest text and typically")
    print("| model | asked | taken | from float32 | sentence-transformers from float32 |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, source in models(options.models, Path(folder)):
            model = antiphon.build(
                source, options.template, pooling=options.pooling, dtype=options.dtype, device=options.device
            )
            for mode in options.modes:
                print(row(name, mode, model), flush=True)


if __name__ == "__main__":
    main()
