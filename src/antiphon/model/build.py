"""From a causal language model to a `SentenceTransformer`: its input, attention, tokenizer and pooling."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from antiphon import nano
from antiphon.errors import ConfigError, ModelError, foreign
from antiphon.model import causality
from antiphon.model.base import read_base
from antiphon.model.gguf import PlainFolder, plain_folder
from antiphon.model.layers import check_layers, keep_layers
from antiphon.model.library_messages import hushed
from antiphon.model.process_memory import keep_few_kernels
from antiphon.model.text_part import is_composite, text_folder
from antiphon.model.weights import check_weights
from antiphon.modules import (
    POOLINGS,
    TEXT_ONLY,
    PoolingMode,
    SpanPooling,
    TemplateInput,
    frequencies_bound,
    positions_of,
)
from antiphon.text.baking import bake, check_specials, with_backend, write_specials
from antiphon.text.chat import resolve
from antiphon.text.pieces import rendered
from antiphon.text.template import DEFAULT, SIDES, Template, named, template_of
from antiphon.text.tokens import LengthBudget, PieceTokenizer, Specials, check_frames, check_ids, sequences

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
# Texts on which a baked tokenizer must agree with the pieces before it is trusted.
PROBES = ("", " ", "one", "  two words", "a\n  new line  and  spaces\n", "naïve — 東京 🎶", "x" * 3000)

logger = logging.getLogger(__name__)


@hushed()
def build(
    base: str | Path,
    template: str | Template = DEFAULT,
    *,
    pooling: PoolingMode = "mean",
    prompts: Mapping[str, str] | None = None,
    eos: bool | None = None,
    bidirectional: bool = False,
    max_tokens: int = 512,
    layers: int | None = None,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> SentenceTransformer:
    """Turn a causal language model into an embedder.

    `base` is a hub id, a local folder, a GGUF file or "nano". `prompts` maps names to instructions ("query" and
    "document" are those of `encode_query` and `encode_document`). `eos` says whether an EOS ends every sequence; the
    template's own word without it. `max_tokens` counts a sequence with one copy of the text. `layers` keeps the first
    so many of the decoder, with its final norm behind them. The model is stock sentence-transformers where that says
    the same (last token, a prefix or a template that fits into the tokenizer), else it has antiphon's two modules.

    Raises ConfigError for a setting that cannot be used, ModelError for a base that cannot be an embedder.

    Example:
        >>> import antiphon
        >>> antiphon.build("nano", "echo", prompts={"query": "Find it"}).encode_query(["sort a list"]).shape
        (1, 256)
    """
    spec = _checked(template, eos, pooling, max_tokens, dtype)
    if layers is not None:
        check_layers(layers)
    source = str(nano.folder()) if base == "nano" else str(base)
    with plain_folder(source, dtype) as plain:
        config, tokenizer = read_base(plain.path)
        check_ids(tokenizer, config.get_text_config(decoder=True).vocab_size)
        spec = resolve(spec, tokenizer)
        Specials.of(tokenizer, eos=spec.eos)
        stock = pooling == "last" and (_prefixes(tokenizer, spec) or (spec.in_tokenizer and _bakes(tokenizer, spec)))
        _prepare(tokenizer, spec, config, in_tokenizer=stock and spec.in_tokenizer, max_tokens=max_tokens)
        module = _load_module(plain.path, config, tokenizer, None if stock else spec, dtype)
    if plain.path != source:
        _came_from(module, source, plain)
    if layers is not None:
        keep_layers(module.model, layers)
    if bidirectional:
        causality.make_bidirectional(module.model)
    instructions = {"query": "", "document": "", **(prompts or {})}
    if stock:
        module.template_spec = spec
        instructions = _as_prefixes(spec, instructions)
    model = SentenceTransformer(
        modules=[module, _pooling(module.get_embedding_dimension(), pooling, stock=stock)],
        prompts=instructions,
        # no task means the query variant, also where that variant is a prefix
        default_prompt_name="query" if stock and instructions["query"] else None,
        similarity_fn_name="cosine",
        device=device,
    )
    check_ready(model)
    return model


def check_embedder(model: object, verb: str) -> None:
    """Raise a ModelError where what `verb` was given as its model is something else, such as a model's name."""
    if isinstance(model, str | Path):
        raise ModelError(
            f"{verb} takes a model, and {str(model)!r} is a name; open it first: antiphon.open_model({str(model)!r})."
        )
    if not isinstance(model, SentenceTransformer):
        raise ModelError(
            f"{verb} takes a SentenceTransformer, as antiphon.open_model, build and load give it, "
            f"not {type(model).__name__}."
        )


def check_ready(model: SentenceTransformer) -> None:
    """Raise a ModelError unless every id has a row, EOS and BOS survive truncation, and attention is as configured."""
    module = model[0]
    check_ids(module.tokenizer, module.model.get_input_embeddings().num_embeddings)
    template = template_of(model)
    check_specials(module.tokenizer, eos=template is None or template.eos)
    keep_few_kernels()  # the model runs here for the first time
    causality.check(module.model)


def _checked(template: str | Template, eos: bool | None, pooling: str, max_tokens: int, dtype: str) -> Template:
    spec = named(template)
    if pooling not in POOLINGS:
        raise ConfigError(f"There is no pooling {pooling!r}; take one of {', '.join(POOLINGS)}.")
    if dtype not in DTYPES:
        raise ConfigError(f"There is no dtype {dtype!r}; take one of {', '.join(DTYPES)}.")
    if not isinstance(max_tokens, int) or max_tokens < 8:
        raise ConfigError(f"max_tokens is {max_tokens!r}; a whole number of at least 8 is wanted.")
    return spec if eos is None else replace(spec, eos=eos)


def _pooling(width: int, pooling: str, *, stock: bool) -> Pooling | SpanPooling:
    return Pooling(width, pooling_mode="lasttoken") if stock else SpanPooling(width, pooling)


def _load_module(
    source: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, slots: Template | None, dtype: str
) -> Transformer:
    """Load the input module; of a model of images and text, its text model alone."""
    if not is_composite(config):
        module = _read_module(source, slots, dtype)
    else:
        with text_folder(source, config, tokenizer, dtype) as (folder, head):
            module = _read_module(str(folder), slots, dtype)
        module.model.config.name_or_path = source
        if head is not None:
            module.head = head.requires_grad_(False)  # the folder that it would be read from is gone
    module.processor = tokenizer
    return module


def _came_from(module: Transformer, source: str, plain: PlainFolder) -> None:
    """Keep what is needed of a folder that is gone: the base's name, its licence and its head."""
    module.model.config.name_or_path = source
    module.base_licence = plain.licence
    if plain.head is not None:
        module.head = plain.head


def _read_module(source: str, slots: Template | None, dtype: str) -> Transformer:
    kind = Transformer if slots is None else TemplateInput
    own = {} if slots is None else {"template": slots.to_dict()}
    with foreign(f"{source} cannot be loaded"):
        check_weights(source)
        return kind(
            source,
            model_kwargs={"dtype": dtype, "trust_remote_code": False},
            processor_kwargs={"trust_remote_code": False},
            config_kwargs={"trust_remote_code": False},
            modality_config=dict(TEXT_ONLY),
            module_output_name="token_embeddings",
            **own,
        )


def _as_prefixes(template: Template, instructions: Mapping[str, str]) -> dict[str, str]:
    """Return the prompts of a stock model: prefixes for a template that is one.

    Raises ConfigError where an instruction is given and the template takes none.
    """
    return {
        name: template.prefix(instruction, "document" if name == "document" else "query")
        if template.in_prompts or instruction
        else ""
        for name, instruction in instructions.items()
    }


def _prefixes(tokenizer: PreTrainedTokenizerBase, template: Template) -> bool:
    """Return whether a plain prefix says the same: not where it holds special tokens, which in a text are text."""
    if not template.eos and Specials.of(tokenizer, eos=False).bos is None and not _begins_with_words(template):
        return False  # an empty text would be no token at all
    words = "".join(piece.content for side in SIDES for piece in template.pieces(side))
    return template.in_prompts and not any(token in words for token in tokenizer.get_added_vocab())


def _begins_with_words(template: Template) -> bool:
    return all(rendered(template.pieces(side), "")[0].kind == "frame" for side in SIDES)


def _bakes(tokenizer: PreTrainedTokenizerBase, template: Template) -> bool:
    """Return whether a tokenizer with the template inside gives the ids that the pieces give."""
    original = tokenizer.backend_tokenizer
    probes = [*PROBES, *(f"before {token} after" for token in tokenizer.get_added_vocab())]
    pieces = PieceTokenizer(tokenizer)
    wanted = [row.ids for row in sequences(probes, template, pieces, prompt="", side="query", max_tokens=10**6)]
    tokenizer.model_max_length = 10**6
    baked = bake(tokenizer, template, budget=10**5)
    readings = [(text, baked(text)["input_ids"], meant) for text, meant in zip(probes, wanted, strict=True)]
    with_backend(tokenizer, original)
    differing = next((reading for reading in readings if reading[1] != reading[2]), None)
    if differing is not None:
        text, ids, meant = differing
        at = next((n for n, (a, b) in enumerate(zip(ids, meant, strict=False)) if a != b), min(len(ids), len(meant)))
        logger.warning(
            "This tokenizer cannot hold template %r exactly: of %r it would make %s and not %s. The model has "
            "antiphon's own modules instead of stock ones, with the same vectors; plain sentence-transformers loads "
            "its folder only after antiphon export --to hub.",
            template.name,
            text[:60],
            tokenizer.convert_ids_to_tokens(ids[at : at + 3]),
            tokenizer.convert_ids_to_tokens(meant[at : at + 3]),
        )
    return differing is None


def _prepare(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    config: PretrainedConfig,
    *,
    in_tokenizer: bool,
    max_tokens: int,
) -> None:
    """Write BOS, EOS and, where it lives there, the template into the tokenizer; set and check the lengths."""
    pieces = PieceTokenizer(tokenizer)
    rows = config.get_text_config(decoder=True).vocab_size
    check_frames(template, pieces, rows)
    lengths = max((LengthBudget.of(template, pieces, one, max_tokens) for one in SIDES), key=lambda side: side.longest)
    _check_positions(template, lengths, config, max_tokens)
    tokenizer.padding_side = "right"
    # some tokenizer classes bring a pad token of their own, past the last row of a small model's embeddings
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        # any token will do: masks say what pads
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    if in_tokenizer:
        bake(tokenizer, template, budget=lengths.budget)
        # a tokenizer cuts one copy and then says it again
        tokenizer.model_max_length = lengths.overhead + lengths.budget
    else:
        write_specials(tokenizer, eos=template.eos)
        tokenizer.model_max_length = max_tokens


def _check_positions(template: Template, lengths: LengthBudget, config: PretrainedConfig, max_tokens: int) -> None:
    """Raise a ConfigError, with the length that fits, where a sequence can be longer than the model's positions."""
    positions = positions_of(config)
    if positions is None or lengths.longest <= positions:
        return
    fits = max_tokens - -(-(lengths.longest - positions) // lengths.copies)
    has = f"the model has {positions} positions"
    if positions == frequencies_bound(config):
        has = f"beyond {positions} tokens the model's vector of a text depends on the longest text beside it"
    raise ConfigError(
        f"With max_tokens={max_tokens} a sequence of template {template.name!r} has up to {lengths.longest} tokens and "
        f"{has}; pass max_tokens={fits} or less."
    )


def check_companions(model: SentenceTransformer) -> None:
    """Raise a ModelError where a text's vector can depend on the longest text beside it: LongRoPE, dynamic NTK."""
    module = model[0]
    if not isinstance(module, Transformer) or template_of(model) is not None:
        return  # with a template of ours, lengths were settled when the model was built, or are checked at every call
    bound, most = frequencies_bound(module.config), module.max_seq_length
    if bound is not None and (most is None or most > bound):
        raise ModelError(
            f"Beyond {bound} tokens this {module.config.model_type} takes its rotary frequencies by the longest text "
            f"of a batch, and its texts may have {most} tokens, so that vectors would depend on what is beside them; "
            f"set model_max_length in its tokenizer_config.json, or max_seq_length, to {bound} or less."
        )
