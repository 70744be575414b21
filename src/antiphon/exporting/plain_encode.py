"""A program, never imported: embed texts with plain sentence-transformers, where antiphon cannot be imported.

    python plain_encode.py REQUEST.json

The request names `calls` (folder, method, trust), `texts` and `out`, a .npz file with an array for every call.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(request: dict[str, Any]) -> None:
    """Answer a request."""
    sys.modules["antiphon"] = None  # type: ignore[assignment]  # an import of it fails from here on
    import numpy as np
    from sentence_transformers import SentenceTransformer

    vectors, models = {}, {}
    for name, call in request["calls"].items():
        if call["folder"] not in models:
            models[call["folder"]] = SentenceTransformer(
                call["folder"], device="cpu", trust_remote_code=call["trust"], model_kwargs={"dtype": "float32"}
            )
        encode = getattr(models[call["folder"]], call["method"])
        given = {"prompt": call["prompt"]} if call["prompt"] is not None else {}
        vectors[name] = encode(request["texts"], batch_size=8, show_progress_bar=False, **given)
    np.savez(request["out"], **vectors)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
