"""What a card says of use: the oldest release that reads the folder, how engines are started, what they must not do."""

from __future__ import annotations

import json
from pathlib import Path

OLDEST_STOCK, OLDEST_OWN = "3.4", "6.0"
"""The oldest sentence-transformers that reads a portable folder (run with transformers 4.46), and one of the hub form,
whose modules have their names since then."""


def use_sections(form: str, folder: Path, frozen: str | None) -> list[str]:
    """Return the sections on use; a portable folder's configuration must be there, for the length of a sequence."""
    if form == "portable":
        return [_python(frozen), _needs_portable(), _engines(folder)]
    return [_python(frozen, own_code=form == "hub with code"), _needs_hub(form == "hub with code")]


def _python(frozen: str | None, *, own_code: bool = False) -> str:
    trust = ", trust_remote_code=True" if own_code else ""
    note = (
        "The folder carries the code of its input and pooling (`modeling_antiphon.py`), which sentence-transformers "
        "runs only with `trust_remote_code=True`; read it first. `antiphon.load` needs no such flag.\n\n"
        if own_code
        else ""
    )
    call = (
        'query = model.encode_query("a question")\ndocuments = model.encode_document(["one text", "another text"])\n'
        "print(model.similarity(query, documents))"
        if frozen is None
        else f'vectors = model.encode(["one text", "another text"])  # read as {frozen}, without a prompt'
    )
    return (
        f"## Use\n\n{note}```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("path/or/id"{trust})\n{call}\n```'
    )


def _needs_portable() -> str:
    return (
        f"Needs sentence-transformers {OLDEST_STOCK} or newer. Releases before 6 take white space off both ends of a "
        "text, and such a text gets the vector of what is left."
    )


def _needs_hub(own_code: bool) -> str:
    needs = f"Needs sentence-transformers {OLDEST_OWN} or newer."
    if not own_code:
        return needs
    return (
        f"{needs} Not for vLLM, text-embeddings-inference or llama.cpp: they pass over the modules of this folder and "
        "give other vectors without a word. `antiphon serve` serves it, and `antiphon export --to portable` writes a "
        "folder for them where the model pools the last token."
    )


def _engines(folder: Path) -> str:
    longest = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_max_length"]
    return (
        f"## Engines\n\n```console\nvllm serve path/or/id --runner pooling --max-model-len {longest}\n```\n\n"
        f"A text that is too long makes {longest} tokens here, and engines count those. vLLM refuses a longer text; do "
        "not let it cut (`truncate_prompt_tokens`, `truncate`): it would cut the sequence and not the text in it."
    )
