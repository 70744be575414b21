"""What antiphon's own modules cost against stock ones that say the same: one process, interleaved, paired ratios.

    python benchmarks/modules.py [MODEL]

Both models read `echo-rewrite` and pool its last token, one by stock sentence-transformers with the template in its
tokenizer, one by TemplateInput and SpanPooling. Ratios are ours / stock: 1 is no cost.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.data.docstrings import of_standard_library
from antiphon.model.parity import compare
from antiphon.modules import SpanPooling

ROUNDS = 7


def seconds(model: SentenceTransformer, texts: list[str]) -> float:
    start = time.perf_counter()
    model.encode(texts, show_progress_bar=False)
    return time.perf_counter() - start


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else "nano"
    stock = antiphon.build(base, pooling="last", max_tokens=256, dtype="float32")
    ours = antiphon.build(base, pooling="mean", max_tokens=256, dtype="float32")
    ours[1] = SpanPooling(ours.get_embedding_dimension(), "last")
    for model in (stock, ours):
        antiphon.Encoder(model).require_fast()  # a benchmark of a broken fast path is worth nothing
    library = [docstring.text for docstring in of_standard_library()]
    workloads = {"short (summary lines)": [text.split("\n")[0] for text in library[:500]], "passages": library[:500]}
    for name, texts in workloads.items():
        parity = compare(stock.encode(texts[:64]), ours.encode(texts[:64]))
        ratios = [seconds(ours, texts) / seconds(stock, texts) for _ in range(ROUNDS)]
        low, middle, high = np.quantile(ratios, [0.0, 0.5, 1.0])
        print(f"{name}: median ratio {middle:.3f} (from {low:.3f} to {high:.3f}), {parity}")


if __name__ == "__main__":
    main()
