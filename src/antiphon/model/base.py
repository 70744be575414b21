"""A base as it lies on disk or on the hub: its files, configuration and tokenizer, each fault a sentence."""

from __future__ import annotations

import base64
import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from sentence_transformers.util import load_file_path
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from antiphon import nano
from antiphon.errors import ModelError, foreign
from antiphon.model.foreign_code import check_code

_CHECKED = (".json", ".safetensors", ".bin", ".model", ".jinja")
"""Endings of the files that a model is read from; nothing else in a folder matters."""
_POINTER = b"version https://git-lfs"
_OBJECTS = ("config.json", "tokenizer_config.json", "model.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "*.tiktoken", "*.model")
"""Files that transformers makes a tokenizer of."""
_PROBES = ("The cat", "two  spaces\n  and a line", "naïve 東京 🎶")
_ELSE = {
    "adapter_config.json": "it holds a LoRA adapter only; merge it into its base with peft's merge_and_unload first",
    "params.json": "it is in the layout of the model's makers; convert it with transformers or take the hub's folder",
}
"""What a folder without config.json is instead, and the way out."""


def read_base(source: str) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Return configuration and tokenizer of a local folder or hub id; code that it brings is never run.

    Raises ModelError, naming the file where it is known, for whatever cannot be read.
    """
    folder = Path(source)
    if folder.exists():
        _check_folder(folder)
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelError(
            f"There is no folder {source}; name an existing one, a hub id such as Qwen/Qwen3-0.6B, or 'nano'."
        )
    check_code(source)
    with foreign(f"The configuration of {source} cannot be read"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if folder.exists():
        _check_tokenizer_files(folder)
    return config, _read_tokenizer(source)


def stored_dtype(base: str) -> str | None:
    """Return the name of the dtype that a base's configuration gives its weights; None where it names none."""
    file = load_file_path(str(nano.folder()) if base == "nano" else base, "config.json")
    settings = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
    named = (
        part.get(key) for part in (settings, settings.get("text_config") or {}) for key in ("dtype", "torch_dtype")
    )
    return next((str(name) for name in named if name in ("float32", "bfloat16", "float16")), None)


def check_files(folder: Path) -> None:
    """Raise a ModelError that names the first file of a model in a folder that is empty or was never downloaded."""
    for file in sorted(path for path in folder.iterdir() if path.suffix in _CHECKED and path.is_file()):
        with foreign(f"{file} cannot be read"), file.open("rb") as opened:
            head = opened.read(len(_POINTER))
        if head == _POINTER:
            raise ModelError(
                f"{file} is a pointer of Git LFS and not the file itself; fetch it with 'git lfs pull', or download "
                "the folder with 'hf download'."
            )
        if not head:
            raise ModelError(f"{file} is empty; download it again.")


def _read_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer, on a backend of `tokenizers`: templates live in one."""
    tekken = Path(source) / "tekken.json"
    with foreign(f"The tokenizer of {source} cannot be read"):
        if tekken.exists() and not (Path(source) / "tokenizer.json").exists():
            return _read_tekken(tekken)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if not tokenizer.is_fast:  # where mistral-common is installed its own class is taken, a tokenizer.json or not
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source, trust_remote_code=False)
    vocabulary = Path(source) / "tokenizer.model"
    if vocabulary.exists() and not (Path(source) / "tokenizer.json").exists() and not _is_tiktoken(vocabulary):
        _check_sentencepiece(tokenizer, vocabulary)
    return tokenizer


def _read_tekken(file: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a tekken.json; every sequence opens with BOS, as in Mistral's own requests."""
    from transformers.integrations.mistral import convert_tekken_tokenizer

    tokenizer = convert_tekken_tokenizer(str(file))
    opening = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{opening[0]} $A", special_tokens=[opening])
    return tokenizer


def _check_sentencepiece(tokenizer: PreTrainedTokenizerBase, vocabulary: Path) -> None:
    """Raise a ModelError where transformers makes other tokens of a SentencePiece file than SentencePiece itself.

    It guesses the order of merges and the space before a text, which a tokenizer.json states.
    """
    with foreign(f"{vocabulary} cannot be read"):
        own = import_module("sentencepiece").SentencePieceProcessor(model_file=str(vocabulary))
        readings = [(tokenizer(text, add_special_tokens=False)["input_ids"], own.encode(text)) for text in _PROBES]
    for text, (read, meant) in zip(_PROBES, readings, strict=True):
        if read != meant:
            raise ModelError(
                f"transformers makes other tokens of {vocabulary} than SentencePiece itself ({text!r}: ids {read[:4]} "
                f"and not {meant[:4]}), so the model would read other tokens than it was trained on; put the "
                "tokenizer.json of its hub folder beside its weights."
            )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is a file; name the folder that holds the model's config.json and weights, or a .gguf file."
        )
    if not (folder / "config.json").is_file():
        instead = next((sentence for pattern, sentence in _ELSE.items() if any(folder.glob(pattern))), None)
        raise ModelError(
            f"{folder} holds no config.json, so it is no Hugging Face model folder"
            f"{'.' if instead is None else f': {instead}.'}"
        )
    check_files(folder)
    for name in _OBJECTS:
        file = folder / name
        if file.exists():
            with foreign(f"{file} cannot be read"):
                content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ModelError(f"{file} holds a {type(content).__name__} where a JSON object is wanted.")


def _check_tokenizer_files(folder: Path) -> None:
    """Raise a ModelError where there is no tokenizer, or where reading it takes a package that is not installed."""
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise ModelError(
            f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or tekken.json); copy the tokenizer's files "
            "beside its weights."
        )
    if (folder / "tokenizer.json").exists():
        return
    for file in sorted((*folder.glob("*.model"), *folder.glob("*.tiktoken"), *folder.glob("tekken.json"))):
        missing = [package for package, module in _packages_for(file).items() if not _installed(module)]
        if missing:
            raise ModelError(
                f"Reading {file} needs {' and '.join(missing)}, which is not installed: pip install "
                f"{' '.join(missing)}, or save the tokenizer as tokenizer.json with transformers where it is."
            )


def _packages_for(file: Path) -> dict[str, str]:
    """Return the packages, and the modules in them, with which a tokenizer's file is turned into a tokenizer.json."""
    if file.suffix == ".json":  # the first tekken files name no special tokens: those are in mistral-common
        with foreign(f"{file} cannot be read"):
            named = "special_tokens" in json.loads(file.read_text(encoding="utf-8"))
        return {} if named else {"mistral-common": "mistral_common"}
    if _is_tiktoken(file):
        return {"tiktoken": "tiktoken"}
    return {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}


def _is_tiktoken(file: Path) -> bool:
    """Return whether a vocabulary is in tiktoken's form: lines of a token in base64 and its rank."""
    with file.open("rb") as opened:
        words = opened.readline(4096).split()
    try:
        return len(words) == 2 and words[1].isdigit() and bool(base64.b64decode(words[0], validate=True))
    except ValueError:
        return False


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
