"""What a card says of use: the oldest release that reads the folder, how engines are started, what they must not do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OLDEST_STOCK, OLDEST_OWN = "3.4", "6.0"
"""The oldest sentence-transformers that reads a portable folder (run with transformers 4.46), and one of the hub form,
whose modules have their names since then."""


@dataclass(frozen=True, kw_only=True)
class GgufUse:
    """What a GGUF file's card says of use."""

    file: str
    pooling: str
    longest: int
    """The most tokens of a sequence."""
    takes_texts: bool
    """Whether llama.cpp makes the model's ids of a text by itself, a prompt put before it."""
    empty_bare: bool
    """Whether an empty text has no prompt before it."""
    readings: Mapping[str, str]
    """The folder of each reading's tokenizer.json, by the reading's name."""


_EMPTY_BARE = "An empty text gets no prompt from `tokenizer.json`: its normalizer puts none before nothing."


def use_sections(form: str, folder: Path, frozen: str | None = None, *, empty_bare: bool = False) -> list[str]:
    """Return the sections on use; a portable folder's configuration must be there, for the length of a sequence.

    `form` is portable, hub, "hub with code" or run. `frozen` is the prompt that the folder's tokenizer holds,
    `empty_bare` whether an empty text has none.
    """
    if form == "portable":
        return [_python(frozen), _needs_portable(), *[_EMPTY_BARE] * empty_bare, _engines(folder)]
    if form == "run":
        return [_python(frozen), _needs_run(folder)]
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


def _needs_run(folder: Path) -> str:
    own = "antiphon" in (folder / "modules.json").read_text(encoding="utf-8")
    beside = " and antiphon, whose template and pooling it names," if own else ""
    return f"Needs sentence-transformers {OLDEST_OWN} or newer{beside}; `antiphon export` writes it for other engines."


def _engines(folder: Path) -> str:
    longest = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_max_length"]
    return (
        f"## Engines\n\n```console\nvllm serve path/or/id --runner pooling --max-model-len {longest}\n```\n\n"
        f"A text that is too long makes {longest} tokens here, and engines count those. vLLM refuses a longer text; do "
        "not let it cut (`truncate_prompt_tokens`, `truncate`): it would cut the sequence and not the text in it.\n\n"
        'Not for `SentenceTransformer(..., backend="openvino")` as it is: optimum-intel (2.2.0) makes positions an '
        "input of most graphs and gives none, so vectors are wrong or NaN without a word. Antiphon's docs/engines.md "
        "has the lines that mend the graph; `antiphon export --to onnx` writes one that OpenVINO reads."
    )


def gguf_sections(use: GgufUse) -> list[str]:
    """Return the sections on use of a GGUF file's card."""
    start = (
        f"## Use\n\n```console\nllama-server -m {use.file} --embeddings --pooling {use.pooling} "
        f"--ctx-size {use.longest} --batch-size {use.longest} --ubatch-size {use.longest} --parallel 1 "
        "--cache-type-k f32 --cache-type-v f32 --flash-attn off\n```\n\n"
        "Without the last three flags llama.cpp keeps keys and values in 16 bits, which is a little farther off. "
        "Vectors have length 1 unless `--embd-normalize` says otherwise."
    )
    places = ", ".join(
        f"`{Path(folder, 'tokenizer.json').as_posix()}` for {name}" for name, folder in use.readings.items()
    )
    ids = (
        "## What to send\n\n"
        f"Token ids, made by {places}, which say the template and cut what is too long:\n\n"
        "```python\nimport json\nimport urllib.request\n\nfrom tokenizers import Tokenizer\n\n"
        f'tokenizer = Tokenizer.from_file("{Path(next(iter(use.readings.values())), "tokenizer.json").as_posix()}")\n'
        'body = json.dumps({"input": tokenizer.encode("a text").ids}).encode()\n'
        'request = urllib.request.Request("http://127.0.0.1:8080/v1/embeddings", body, '
        '{"Content-Type": "application/json"})\n'
        'vector = json.load(urllib.request.urlopen(request))["data"][0]["embedding"]\n```\n\n'
        "`antiphon tokens` prints the same ids, and `antiphon serve MODEL --upstream URL` sends them for clients that "
        "have texts."
    )
    return [start, ids, *[_EMPTY_BARE] * use.empty_bare, _strings(use.takes_texts)]


def _strings(takes_texts: bool) -> str:
    """Return what a card says of clients that send strings, as those of Ollama and LM Studio do."""
    if takes_texts:
        return (
            "A text may also be sent as a string, the prompt put before it: llama.cpp adds BOS and EOS as the file "
            "says. A text that spells a special token is that token then, and one that is too long is refused or cut "
            "by the engine. Ollama and LM Studio take strings only."
        )
    return (
        "A string is not enough: this file holds no template, and the template written into the string gives other "
        "tokens where its pieces meet. Ollama and LM Studio take strings only, so they are not for this model."
    )
