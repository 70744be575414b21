"""What tests of folders of vectors embed, and a tiny model for it."""

from __future__ import annotations

import json
from pathlib import Path

from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.model.parity import unlike_texts

TEXTS = [text for text in unlike_texts() if text.strip() and "\n" not in text]


def embedder(base: Path) -> SentenceTransformer:
    return antiphon.build(base, "echo-rewrite", max_tokens=64, dtype="float32", device="cpu")


def texts_file(folder: Path) -> Path:
    """A file of the texts with ids, and a column beside them."""
    path = folder / "texts.jsonl"
    rows = [{"id": f"t{n}", "text": text, "year": 2000 + n} for n, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
