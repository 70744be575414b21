"""The form `gguf`: one file for llama.cpp and what stands on it, and the tokenizer.json of every reading beside it.

A GGUF file holds no template and no prompt, so whoever asks sends the token ids that tokenizer.json gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from transformers import PreTrainedTokenizerBase

from antiphon.errors import ModelError
from antiphon.exporting.gguf_vocabulary import Vocabulary, vocabulary_of, write_vocabulary
from antiphon.exporting.gguf_weights import family_of, library, tensors, write_settings
from antiphon.exporting.portable import stock_mode
from antiphon.exporting.readings import ExportedReading, freeze, leaves_empty_bare, readings
from antiphon.exporting.stock_files import cut_length, longest_sequence, write_text_tokenizer
from antiphon.exporting.verified import Call, FormSettings
from antiphon.model.calibration import calibration_of
from antiphon.model.variants import tokens
from antiphon.training.card_usage import GgufUse, gguf_sections
from antiphon.training.model_card import write_card

POOLINGS = {"lasttoken": "LAST", "mean": "MEAN", "cls": "CLS"}
"""gguf's names of sentence-transformers' poolings."""


def writes(weights: str) -> Callable[[SentenceTransformer, Path, FormSettings], dict[str, Call]]:
    """Return the function that writes a folder with weights of one of WEIGHT_TYPES.

    It raises ConfigError where gguf is missing and ModelError, with the way out, for what such a file cannot say.
    """

    def write(model: SentenceTransformer, folder: Path, settings: FormSettings) -> dict[str, Call]:
        library()
        _check_modules(model)
        wanted = readings(model)
        mode = stock_mode(model, wanted)
        tokenizers = {reading.name: freeze(model, reading) for reading in wanted}
        calls = {one.name: _write_reading(model, folder, one, tokenizers[one.name]) for one in wanted}
        longest = max(longest_sequence(call.folder) for call in calls.values())
        vocabulary = vocabulary_of(model.tokenizer, model[0].model.get_input_embeddings().num_embeddings)
        file = folder / f"model-{weights}.gguf"
        _write_file(model, file, vocabulary, weights=weights, mode=mode, longest=longest)
        use = GgufUse(
            file=file.name,
            pooling=POOLINGS[mode].lower(),
            longest=longest,
            takes_texts=vocabulary.reads_texts and all(_is_plain(model, reading) for reading in wanted),
            empty_bare=any(leaves_empty_bare(model, one, tokenizers[one.name]) for one in wanted),
            readings={reading.name: reading.folder for reading in wanted},
        )
        write_card(folder, model, settings.source, gguf_sections(use))
        return {name: Call(call.folder, file=str(file.resolve())) for name, call in calls.items()}

    return write


def _check_modules(model: SentenceTransformer) -> None:
    """Raise a ModelError for a Dense module: llama.cpp has no place for one behind the pooling of a decoder."""
    known = calibration_of(model)
    if known is not None:
        raise ModelError(
            f"A GGUF file cannot hold the calibration of this model ({known.method}): llama.cpp's decoders have no "
            "bias behind their last norm; export the model that is not calibrated, or this one to 'portable' for vLLM."
        )
    if any(isinstance(module, Dense) for module in model):
        raise ModelError("A GGUF file cannot hold a Dense module behind the pooling; export to 'portable' for vLLM.")


def _write_reading(
    model: SentenceTransformer, folder: Path, reading: ExportedReading, tokenizer: PreTrainedTokenizerBase
) -> Call:
    place = folder / reading.folder
    place.mkdir(parents=True, exist_ok=True)
    write_text_tokenizer(tokenizer, place / "tokenizer.json", cut_at=cut_length(model, tokenizer))
    return Call(place)


def _write_file(
    model: SentenceTransformer, file: Path, vocabulary: Vocabulary, *, weights: str, mode: str, longest: int
) -> None:
    gguf = library()
    backbone = model[0].model
    family = family_of(backbone, longest)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[family.architecture]])
    try:
        writer.add_type("model")
        write_settings(writer, backbone, family, weights=weights)
        writer.add_pooling_type(gguf.PoolingType[POOLINGS[mode]])
        ids, _ = tokens(model, "a text", "", "query")
        bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
        write_vocabulary(writer, vocabulary, model.tokenizer, bos=ids[0] == bos, eos=ids[-1] == eos)
        listed = list(tensors(backbone, family, weights=weights))
        for one in listed:
            writer.add_tensor_info(one.name, *one.announced(), one.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in listed:
            writer.write_tensor_data(one.packed())
    finally:
        writer.close()


def _is_plain(model: SentenceTransformer, reading: ExportedReading) -> bool:
    """Return whether a reading is a prefix and the text, so that a client may send it as a string."""
    bare, _ = tokens(model, "a text", reading.prompt, reading.side)
    backend = model.tokenizer.backend_tokenizer
    words = backend.encode(reading.prompt + "a text", add_special_tokens=False).ids
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    return bool(bare[bare[0] == bos : len(bare) - (bare[-1] == eos)] == words)
