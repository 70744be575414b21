"""Where the figures of the authors' own code lie, and what their code says to each set of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN, MODELS = SHARED / "golden", SHARED / "data" / "models"
SHIPPED = Path(__file__).resolve().parent / "fixtures" / "written-by-0.1.0" / "base"
"""A tiny language model that ships with the tests."""
INSTRUCTIONS = {
    "nq": "Given a question, retrieve Wikipedia passages that answer the question",
    "hotpot_qa": "Given a multi-hop question, retrieve documents that can help answer the question",
    "fever": "Given a claim, retrieve documents that support or refute the claim",
    "squad": "Retrieve Wikipedia passages that answer the question",
    "quora_duplicates": "Given a question, retrieve questions that are semantically equivalent to the given question",
    "allnli": "Given a premise, retrieve a hypothesis that is entailed by the premise",
}
"""By the data set of a row."""
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the folder shared/golden beside the checkout")
