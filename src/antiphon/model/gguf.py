"""GGUF files as bases: read by transformers, weights unpacked, laid down as a plain folder for the time of a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from antiphon import compat
from antiphon.errors import ModelError, foreign
from antiphon.files import scratch

ENDING = ".gguf"
_MAGIC = b"GGUF"
_OPENED_BY_BOS = ("llama-bpe", "llama3", "llama-v3", "falcon3")
"""Kinds of tokenizers that llama.cpp opens with BOS where a file says nothing of it."""


@dataclass(frozen=True)
class PlainFolder:
    """A base as a folder in transformers' layout."""

    path: str
    licence: str | None = None
    """What the file says of its licence, by the hub's short name."""
    head: nn.Module | None = None
    """The untied vocabulary head, which is not to be read from a folder that is gone."""


@dataclass(frozen=True)
class _Stated:
    """What a file says of itself beside its weights."""

    licence: str | None
    opens_with_bos: bool | None
    """None where it says nothing, and transformers' own rule holds."""


@contextmanager
def plain_folder(source: str, dtype: str = "auto") -> Iterator[PlainFolder]:
    """Give a plain folder of a GGUF file, or of a folder that holds one and no config.json; others as they are.

    Weights are unpacked to fp32 unless `dtype` says otherwise, which changes none of them. Raises ModelError for a file
    that is cut off, of a kind that transformers does not read or split into several, and where `gguf` is missing.
    """
    file = _file_in(Path(source))
    if file is None:
        yield PlainFolder(source)
        return
    stated = _checked(file)
    with scratch() as folder:
        with foreign(f"{file} cannot be read"), compat.gguf_bar_switched():
            model, report = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=dtype, output_loading_info=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
            _open_with_bos(tokenizer, stated.opens_with_bos)
            if not report["missing_keys"]:
                compat.forget_quantisation(model)
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
        if report["missing_keys"]:
            raise ModelError(f"{file} holds no {sorted(report['missing_keys'])[0]}; take a complete copy of the file.")
        head = model.get_output_embeddings()
        tied = head is None or head.weight is model.get_input_embeddings().weight
        del model
        yield PlainFolder(str(folder), stated.licence, None if tied else head.requires_grad_(False))


def is_gguf(source: str) -> bool:
    """Return whether a base is a GGUF file, or a folder that holds one in the place of transformers' files."""
    return _file_in(Path(source)) is not None


def _file_in(source: Path) -> Path | None:
    """Return the GGUF file that a source stands for, None where it stands for none."""
    if source.is_file():
        return source if source.suffix == ENDING else None
    if not source.is_dir() or (source / "config.json").exists():
        return None
    files = sorted(source.glob(f"*{ENDING}"))
    if len(files) > 1:
        listed = ", ".join(file.name for file in files[:4])
        raise ModelError(f"{source} holds {len(files)} GGUF files ({listed}); name one of them.")
    return files[0] if files else None


def _open_with_bos(tokenizer: PreTrainedTokenizerBase, wanted: bool | None) -> None:
    """Let sequences open with BOS as the file says, which transformers does not ask; llama.cpp does."""
    bos, index = tokenizer.bos_token, tokenizer.bos_token_id
    if wanted is None or index is None or (tokenizer("a")["input_ids"][:1] == [index]) == wanted:
        return
    single, specials = (f"{bos} $A", [(bos, index)]) if wanted else ("$A", [])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=specials)


def _checked(file: Path) -> _Stated:
    """Return what a GGUF file states; raise a ModelError for one that cannot be read whole."""
    with foreign(f"{file} cannot be read"), file.open("rb") as opened:
        magic = opened.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ModelError(
            f"{file} does not begin as a GGUF file does; download it again (a pointer of Git LFS is fetched with 'git "
            "lfs pull')."
        )
    if find_spec("gguf") is None:
        raise ModelError(f"Reading {file} needs gguf, which is not installed: pip install 'antiphon[gguf]'.")
    try:
        reader = import_module("gguf").GGUFReader(file)
        tensors = list(reader.tensors)
        names = ("general.license", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.pre", "split.count")
        licence, bos, kind, parts = (_field(reader, name) for name in names)
    except Exception as error:  # whatever it stumbles over, the file ends before what its header promises
        raise ModelError(
            f"{file} is cut off or broken ({file.stat().st_size:,} bytes; {type(error).__name__}); download it again."
        ) from error
    if isinstance(parts, int) and parts > 1:
        raise ModelError(f"{file} is one of {parts} parts; join them with llama.cpp's gguf-split --merge first.")
    if not tensors:
        raise ModelError(f"{file} holds no weights, only a vocabulary; take the model's own file.")
    opens = bos if isinstance(bos, bool) else True if kind in _OPENED_BY_BOS else None
    return _Stated(licence if isinstance(licence, str) and licence else None, opens)


def _field(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()
