"""A hash of all that decides which vector a text gets: weights, modules, tokenizer, prompts and lengths.

Two models of one architecture with the same fingerprint give the same vectors, wherever they were loaded from; device
and attention kernel are no part of it. What is hashed is content, never a path. What is kept to save a computation
stands under `cache_key`, which is another one too where config.json says something else of the same weights.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

_UNSAID = frozenset({"_name_or_path", "architectures", "dtype", "transformers_version", "use_cache"})
"""Of a configuration, what changes from folder to folder and no vector."""


def fingerprint(model: SentenceTransformer | CrossEncoder) -> str:
    """Return the fingerprint as 64 hexadecimal digits; it survives saving and loading."""
    digest = hashlib.sha256(json.dumps(_settings(model), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def cache_key(model: SentenceTransformer | CrossEncoder) -> str:
    """Return the fingerprint with the decoder's configuration as the installed transformers reads it, 64 digits.

    Other releases may read another one, so it is no name to be recorded: what they find under it is made again.
    """
    config = getattr(getattr(model[0], "model", None), "config", None)
    facts = {} if config is None else {key: one for key, one in config.to_dict().items() if key not in _UNSAID}
    configuration = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(f"{fingerprint(model)} {configuration}".encode()).hexdigest()


def _bytes(tensor: Any) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _settings(model: SentenceTransformer | CrossEncoder) -> dict[str, Any]:
    modules = list(model)
    return {
        "modules": [[type(module).__qualname__, module.get_config_dict()] for module in modules],
        "tokenizer": _tokenizer(model),
        "max_seq_length": model.max_seq_length,
        "prompts": {name: prompt for name, prompt in (model.prompts or {}).items() if prompt},
        "default_prompt_name": model.default_prompt_name,
        "truncate_dim": getattr(model, "truncate_dim", None),  # a cross-encoder has no vectors
        "is_causal": getattr(getattr(getattr(modules[0], "model", None), "config", None), "is_causal", True),
    }


def _tokenizer(model: SentenceTransformer | CrossEncoder) -> Any:
    """Return tokenizer.json without the truncation and padding that the last call to it left behind."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(model.tokenizer)
    return {key: value for key, value in json.loads(backend.to_str()).items() if key not in ("truncation", "padding")}
