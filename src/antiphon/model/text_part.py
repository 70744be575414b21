"""The language model inside a model of images and text: taken out as a plain text model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from antiphon.errors import ModelError, foreign
from antiphon.files import scratch


def is_composite(config: PretrainedConfig) -> bool:
    """Return whether a configuration is of a model whose text has a configuration of its own."""
    return type(config.get_text_config(decoder=True)) is not type(config)


@contextmanager
def text_folder(
    source: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, dtype: str
) -> Iterator[tuple[Path, nn.Module | None]]:
    """Give a temporary folder with the text model of a composite one, and its head (V, D) where that is untied.

    Raises ModelError where transformers has no text model of its kind, or where weights of it are missing.
    """
    inner = config.get_text_config(decoder=True)
    if type(inner) not in MODEL_FOR_CAUSAL_LM_MAPPING or type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ModelError(
            f"{source} is a model of text and more ({config.model_type}), and transformers has no causal language "
            f"model of its text's kind ({inner.model_type}); take the family's text-only release."
        )
    with scratch() as folder:
        with foreign(f"The text model in {source} cannot be taken out"):
            whole, loaded = AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype, trust_remote_code=False, output_loading_info=True
            )
            text, head = _text_model(whole)
            _check_loaded(source, whole, text, loaded["missing_keys"])
            text.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        del whole, text
        yield folder, head


def _text_model(whole: PreTrainedModel) -> tuple[PreTrainedModel, nn.Module | None]:
    """Return the `*ForCausalLM` over the decoder of a composite model, and its head where that is untied."""
    decoder, head = whole.get_decoder(), whole.get_output_embeddings()
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(decoder.config, trust_remote_code=False)
    if type(text.base_model) is not type(decoder):
        raise ModelError(
            f"The text model in a {whole.config.model_type} is a {type(decoder).__name__}, which is no "
            f"{type(text.base_model).__name__} as in a causal language model; take the family's text-only release."
        )
    setattr(text, text.base_model_prefix, decoder)
    tied = head is None or head.weight is decoder.get_input_embeddings().weight
    text.config.tie_word_embeddings = tied
    if tied:
        text.tie_weights()
    else:
        text.set_output_embeddings(head)
    return text, None if tied else head


def _check_loaded(source: str, whole: PreTrainedModel, text: PreTrainedModel, missing: Iterable[str]) -> None:
    """Raise a ModelError where a weight of the text model was not in the files."""
    own = {id(parameter) for parameter in text.parameters()}
    parameters = dict(whole.named_parameters())
    for name in sorted(missing):
        if id(parameters.get(name)) in own:
            raise ModelError(f"The weights of {source} hold no {name}, so its text model would be random.")
