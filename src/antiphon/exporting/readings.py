"""What a model says to its texts, prompt by prompt, and a tokenizer that says one of these by itself.

A reading is a prompt and a side. A frozen reading lives in tokenizer.json: whoever reads that file reads the text so.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from sentence_transformers import SentenceTransformer
from tokenizers import normalizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from antiphon.errors import ModelError
from antiphon.model.parity import unlike_texts
from antiphon.model.prompts import PROMPT_NAMES, prompt_of, side_of
from antiphon.text.baking import bake
from antiphon.text.pieces import rendered
from antiphon.text.template import Side, Template, fills_slots, template_of
from antiphon.text.tokens import LengthBudget, PieceTokenizer

LONGEST_CUT = 2048
"""A text is made too long on purpose only for models that cut at so many tokens or earlier."""


@dataclass(frozen=True)
class ExportedReading:
    """One way in which a model reads a text."""

    name: str
    """The prompt's name: query, document, or another of the model's."""
    side: Side
    prompt: str
    """What sentence-transformers is handed as `prompt`."""
    folder: str
    """Where it lives in the export: a sub-folder, or nothing where it is the only one."""


def readings(model: SentenceTransformer) -> list[ExportedReading]:
    """Return the readings of a model that differ, the query's first; they are one where sides and prompts are alike."""
    prompts = {name: prompt or "" for name, prompt in (model.prompts or {}).items()}
    own = next((name for name in PROMPT_NAMES["document"] if name in prompts), "document")
    found: dict[object, ExportedReading] = {}
    for name in ["query", own, *(name for name in prompts if name not in ("query", own))]:
        side: Side = side_of(name) or "query"
        reading = ExportedReading(name, side, prompts[name] if name in prompts else prompt_of(model, side), name)
        found.setdefault(_words(model, reading), reading)
    kept = list(found.values())
    return kept if len(kept) > 1 else [ExportedReading(kept[0].name, kept[0].side, kept[0].prompt, "")]


def _words(model: SentenceTransformer, reading: ExportedReading) -> object:
    """Return something that two readings share where they say the same."""
    template = template_of(model)
    if template is None or not fills_slots(model):
        return reading.prompt
    return rendered(template.pieces(reading.side), reading.prompt), reading.prompt


def freeze(model: SentenceTransformer, reading: ExportedReading, *, mark_span: bool = False) -> PreTrainedTokenizerBase:
    """Return a copy of the model's tokenizer that says the reading by itself.

    `mark_span` gives the pooled tokens the type id 1. Raises ModelError where this tokenizer cannot say it exactly.
    """
    template = template_of(model)
    if template is not None and fills_slots(model):
        tokenizer = _with_slots(model, template, reading, mark_span=mark_span)
        candidates = [tokenizer]
    else:
        candidates = _with_prefix(model, reading.prompt)
    texts = probes(model)
    wanted = [_ids(model, text, reading) for text in texts]
    for tokenizer in candidates:
        if [tokenizer(text, truncation=True)["input_ids"] for text in texts] == wanted:
            return tokenizer
    raise ModelError(
        f"The tokenizer cannot hold the {reading.name} prompt exactly: some texts get other tokens than the "
        "model gives them. Export to 'hub', where the model's own code says it."
    )


def leaves_empty_bare(model: SentenceTransformer, reading: ExportedReading, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a frozen prompt is not said before an empty text: a normalizer puts nothing before nothing."""
    return bool(tokenizer("")["input_ids"] != _ids(model, "", reading))


def probes(model: SentenceTransformer) -> list[str]:
    """Return the texts that an export is checked on: unlike ones, odd white space, and one that is cut."""
    unlike = unlike_texts()
    odd = ["  two spaces before", "a\n  new line  and  spaces\n", "naïve — 東京 🎶"]
    most = model.max_seq_length
    # a token is rarely more than five characters of these texts
    cut = [" ".join(unlike * (5 * most // len(" ".join(unlike)) + 1))] if most and most <= LONGEST_CUT else []
    return [*unlike, *odd, *cut]


def kept(model: SentenceTransformer) -> PreTrainedTokenizerBase:
    """Return a copy of the tokenizer as it is; prompts stay in the model's configuration."""
    return copy.deepcopy(model.tokenizer)


def _with_slots(
    model: SentenceTransformer, template: Template, reading: ExportedReading, *, mark_span: bool
) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(model.tokenizer)
    most = model.max_seq_length
    lengths = LengthBudget.of(template, PieceTokenizer(tokenizer), reading.side, most, prompt=reading.prompt)
    bake(tokenizer, template, budget=lengths.budget, side=reading.side, prompt=reading.prompt, mark_span=mark_span)
    tokenizer.model_max_length = lengths.overhead + lengths.budget  # a tokenizer cuts one copy and then says it again
    return tokenizer


def _with_prefix(model: SentenceTransformer, prefix: str) -> list[PreTrainedTokenizerBase]:
    """Return two ways to put a prefix before every text: glued to its first word, or as tokens of its own."""
    if not prefix:
        return [copy.deepcopy(model.tokenizer)]
    glued, framed = copy.deepcopy(model.tokenizer), copy.deepcopy(model.tokenizer)
    own = glued.backend_tokenizer.normalizer
    parts = [own[n] for n in range(len(own))] if isinstance(own, normalizers.Sequence) else [own] if own else []
    glued.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(prefix), *parts])
    framed.backend_tokenizer.post_processor = _framing(framed, prefix)
    return [glued, framed]


def _framing(tokenizer: PreTrainedTokenizerBase, prefix: str) -> TemplateProcessing:
    """Return a post-processor that puts the tokens of a prefix where the text begins."""
    backend = tokenizer.backend_tokenizer
    bare, whole = (backend.encode("x", add_special_tokens=added).ids for added in (False, True))
    start = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
    parts = {
        "before": whole[:start],
        "prefix": tokenizer(prefix, add_special_tokens=False)["input_ids"],
        "after": whole[start + len(bare) :],
    }
    present = [name for name in ("before", "prefix") if parts[name]] + ["$A"] + ["after"] * bool(parts["after"])
    return TemplateProcessing(
        single=" ".join(present),
        pair="$A $B:1",
        special_tokens=[
            {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
            for name, ids in parts.items()
            if ids
        ],
    )


def _ids(model: SentenceTransformer, text: str, reading: ExportedReading) -> list[int]:
    features = model.preprocess([text], prompt=reading.prompt or None, task=reading.side)
    mask = features["attention_mask"][0].bool()
    ids: list[int] = features["input_ids"][0][mask].tolist()
    return ids
