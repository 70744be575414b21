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
    import torch
    from sentence_transformers import SentenceTransformer

    vectors: dict[str, Any] = {}
    models: dict[tuple[str, str], SentenceTransformer] = {}
    for name, call in request["calls"].items():
        # what is compared is computed in float32; what is written must hold in its own dtype too
        for dtype in ("float32", "auto"):
            if (call["folder"], dtype) not in models:
                models[call["folder"], dtype] = SentenceTransformer(
                    call["folder"], device="cpu", trust_remote_code=call["trust"], model_kwargs={"dtype": dtype}
                )
            model = models[call["folder"], dtype]
            if dtype == "auto" and model.dtype == torch.float32:
                continue
            given = {"prompt": call["prompt"]} if call["prompt"] is not None else {}
            found = getattr(model, call["method"])(request["texts"], batch_size=8, show_progress_bar=False, **given)
            if not np.isfinite(found).all():
                sys.exit(
                    f"its vectors are not finite in {str(model.dtype).removeprefix('torch.')}, in which its weights "
                    "are written; open the model with dtype='bfloat16' or 'float32' and export that"
                )
            vectors.setdefault(name, found)
    np.savez(request["out"], **vectors)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
