"""The files of a folder that every reader of sentence-transformers' format understands, whatever its age.

Newer sentence-transformers write less than the servers want: no length, no pooling flags, module classes that older
versions do not know. What is written here is the union, in the oldest spelling that the newest still reads.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from antiphon.errors import ModelError
from antiphon.model import causality

CLASSIC = "sentence_transformers.models"
"""The home of the modules in every version of sentence-transformers."""
NORMALIZE = f"{CLASSIC}.Normalize"
DEFAULTS: Mapping[str, object] = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
    "use_residual": False,
}
"""Of a Dense: sentence-transformers 5 and older know no such settings, and newer ones take these without them."""
_NO_DEFAULT = object()
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_folder(
    model: SentenceTransformer,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    mode: str,
    prompts: Mapping[str, str],
    dimensions: Sequence[int],
    weights: Path | None,
) -> None:
    """Write one folder; `weights` is a folder of this export that has the same ones already."""
    folder.mkdir(parents=True, exist_ok=True)
    backbone = model[0].model
    if weights is None:
        backbone.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
    else:
        for file in [*weights.glob("*.safetensors"), *weights.glob("*.safetensors.index.json")]:
            link(file, folder / file.name)
    write_tokenizer(tokenizer, folder, cut_at=cut_length(model, tokenizer))
    _write_for_readers(folder)
    config = _config(backbone, tokenizer, model.max_seq_length, dimensions)
    write_json(folder / "config.json", {**config, "model_max_length": longest_sequence(folder)})
    _write_modules(model, folder, mode)
    lower = bool(getattr(model[0], "do_lower_case", False))
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": cut_length(model, tokenizer), "do_lower_case": lower},
    )
    default = model.default_prompt_name
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {},
            "model_type": "SentenceTransformer",
            "prompts": dict(prompts),
            "default_prompt_name": default if default and prompts.get(default) else None,
            "similarity_fn_name": model.similarity_fn_name or "cosine",
        },
    )


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, *, cut_at: int) -> None:
    """Write the tokenizer so that every reader of tokenizer.json cuts, pads and finds its class alike."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    raw.update(cutting_and_padding(tokenizer, cut_at))
    write_json(file, raw)
    file = folder / "tokenizer_config.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    # the classes of single families rebuild the post-processor in transformers 4, and 5's own name is unknown there
    kept.update(tokenizer_class="PreTrainedTokenizerFast", model_max_length=cut_at)
    dropped = ("backend", "is_local", "local_files_only", "processor_class", "auto_map")
    write_json(file, {key: value for key, value in kept.items() if key not in dropped})


def write_text_tokenizer(tokenizer: PreTrainedTokenizerBase, file: Path, *, cut_at: int) -> None:
    """Write tokenizer.json for who reads nothing beside it: what a user types is text, also where it spells a special.

    That switch is no part of the file, so where the model reads so, added tokens with a visible character are left out
    of it; the template's own stand in the post-processor by their ids.
    """
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    raw.update(cutting_and_padding(tokenizer, cut_at))
    if getattr(tokenizer, "split_special_tokens", False):
        raw["added_tokens"] = [token for token in raw["added_tokens"] if not token["content"].strip()]
    file.write_text(json.dumps(raw, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_for_readers(folder: Path) -> None:
    """Take out of a tokenizer's files what some reader would act upon: type ids, and chat templates.

    transformers 4 makes type ids for a class that names none, which a decoder does not take; vLLM's `/v2/embed` puts
    texts into a chat where there is a template for one.
    """
    file = folder / "tokenizer_config.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept.pop("chat_template", None)
    write_json(file, {**kept, "model_input_names": ["input_ids", "attention_mask"]})
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    shutil.rmtree(folder / "additional_chat_templates", ignore_errors=True)


def longest_sequence(folder: Path) -> int:
    """Return how many tokens the tokenizer of a folder makes of a text that is too long, all copies and frames.

    An engine that counts tokens behind the tokenizer, as vLLM does, has to be given this number.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    most = int((tokenizer.truncation or {}).get("max_length", 0))
    return len(tokenizer.encode(" word" * (most + 1)).ids)


def cutting_and_padding(tokenizer: PreTrainedTokenizerBase, cut_at: int) -> dict[str, Any]:
    """Return the truncation and padding of a tokenizer.json."""
    side = tokenizer.padding_side.capitalize()
    pad = tokenizer.pad_token if tokenizer.pad_token is not None else tokenizer.eos_token
    return {
        "truncation": {
            "direction": tokenizer.truncation_side.capitalize(),
            "max_length": cut_at,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": "BatchLongest",
            "direction": side,
            "pad_to_multiple_of": None,
            "pad_id": tokenizer.convert_tokens_to_ids(pad),
            "pad_type_id": 0,
            "pad_token": pad,
        },
    }


def _config(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int | None, dimensions: Sequence[int]
) -> dict[str, Any]:
    """Return config.json with what older readers look for beside what newer ones wrote."""
    config: PretrainedConfig = backbone.config
    raw: dict[str, Any] = {**config.to_diff_dict(), "model_type": config.model_type, "use_cache": False}
    raw.pop("_name_or_path", None)
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    own_switch = causality.is_bidirectional(backbone) and hasattr(config, "use_bidirectional_attention")
    if causal is not None and not own_switch:  # such a family's encoder is known by the backbone's name
        raw["architectures"] = [causal]  # engines know families by this name; the weights need no head for it
    dtype = str(backbone.dtype).removeprefix("torch.")
    raw.update(dtype=dtype, torch_dtype=dtype, **_legacy_rope(raw.get("rope_parameters")))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if isinstance(pad, int) and pad < config.get_text_config().vocab_size:
        raw["pad_token_id"] = pad
    if causality.is_bidirectional(backbone):
        raw.update(is_causal=False, use_bidirectional_attention=True)
        window = raw.get("sliding_window")
        # Gemma's own switch halves the sliding window when it is read
        if own_switch and window and longest and longest > window // 2:
            raise ModelError(
                f"Engines halve the sliding window of a bidirectional {config.model_type} ({window} tokens), so they "
                f"would read texts of up to {longest} tokens otherwise; lower max_seq_length to {window // 2}."
            )
    if dimensions:
        raw["matryoshka_dimensions"] = sorted(dimensions)
    return raw


def _legacy_rope(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the rotary settings as transformers 4 and candle spell them; they know no `rope_parameters`."""
    if not parameters:
        return {}
    if "full_attention" in parameters:  # one set a kind of layer, as in Gemma 3
        full, local = _legacy_rope(parameters["full_attention"]), parameters.get("sliding_attention") or {}
        return {**full, "rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else full
    theta = {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}
    scaled = parameters.get("rope_type", "default") != "default"
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"} if scaled else None
    return {**theta, "rope_scaling": scaling}


def _write_modules(model: SentenceTransformer, folder: Path, mode: str) -> None:
    listed = [("Transformer", "")]
    for number, module in enumerate(list(model)[1:], start=1):
        kind = "Pooling" if number == 1 else type(module).__name__
        path = folder / f"{number}_{kind}"
        path.mkdir()
        if number == 1:
            write_json(path / "config.json", pooling_config(module.embedding_dimension, mode))
        else:
            module.save(str(path))
            _drop_defaults(path / "config.json")
        listed.append((kind, path.name))
    if listed[-1][0] != "Normalize":
        (folder / f"{len(listed)}_Normalize").mkdir()
        listed.append(("Normalize", f"{len(listed)}_Normalize"))
    entries = [
        {"idx": n, "name": str(n), "path": path, "type": f"{CLASSIC}.{kind}"} for n, (kind, path) in enumerate(listed)
    ]
    write_json(folder / "modules.json", entries)


def _drop_defaults(file: Path) -> None:
    """Take out of a module's settings those that older sentence-transformers refuse, where they say nothing new."""
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, {key: value for key, value in kept.items() if DEFAULTS.get(key, _NO_DEFAULT) != value})


def pooling_config(width: int, mode: str) -> dict[str, Any]:
    """Return 1_Pooling/config.json: the flags that servers read, and the mode by name."""
    flags = {flag: name == mode for name, flag in _FLAGS.items()}
    # by its old name: sentence-transformers 3 to 5 take no other, and 6 takes both
    return {"word_embedding_dimension": width, **flags, "include_prompt": True, "pooling_mode": mode}


def cut_length(model: SentenceTransformer, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens at which the tokenizer cuts; some carry a number beyond all bounds for 'never'."""
    positions = getattr(model[0].config.get_text_config(), "max_position_embeddings", None)
    return min(int(tokenizer.model_max_length), positions if isinstance(positions, int) else 1 << 31)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as people read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
