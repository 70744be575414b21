"""What lives inside the tokenizer: BOS and EOS always, and a whole template where it can say it."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from antiphon import compat
from antiphon.errors import ModelError
from antiphon.text.pieces import Piece, rendered
from antiphon.text.template import Side, Template
from antiphon.text.tokenizer_json import assembled, parts_of, plain_text, without_prefix
from antiphon.text.tokens import CHARACTERS_A_TOKEN, PieceTokenizer, Specials

_REPEAT = 10_000


def write_specials(tokenizer: PreTrainedTokenizerBase, *, eos: bool = True) -> None:
    """Put BOS and EOS into the post-processor, where truncation cannot cut them off, and make user text text."""
    specials = Specials.of(tokenizer, eos=eos)
    ends = (specials.bos, specials.eos if eos else None)
    used = {index: str(tokenizer.convert_ids_to_tokens(index)) for index in ends if index is not None}
    opening, closing = (None if index is None else used[index] for index in ends)
    backend = assembled(tokenizer.backend_tokenizer, plain_text(parts_of(tokenizer.backend_tokenizer)))
    backend.post_processor = TemplateProcessing(
        single=" ".join(filter(None, (opening, "$A", closing))),
        pair=" ".join(filter(None, (opening, "$A", "$B:1", closing and f"{closing}:1"))),
        special_tokens=[(name, index) for index, name in used.items()],
    )
    with_backend(tokenizer, backend)


def check_specials(tokenizer: PreTrainedTokenizerBase, *, eos: bool = True) -> None:
    """Raise a ModelError unless a short and a truncated text both keep their BOS and, where it is wanted, EOS."""
    specials = Specials.of(tokenizer, eos=eos)
    # a text a little too long, not a giant: a template that names the text twice pairs every piece that was cut off
    for text, most in (("x", None), ("x " * (tokenizer.model_max_length + 8), tokenizer.model_max_length)):
        ids = tokenizer(text, truncation=most is not None, max_length=most)["input_ids"]
        if (eos and ids[-1] != specials.eos) or (specials.bos is not None and ids[0] != specials.bos):
            which = "a short" if most is None else "a truncated"
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path} loses BOS or EOS on {which} text (ids {ids[:2]} ... "
                f"{ids[-2:]}); its post_processor in tokenizer.json must add them: save it again with antiphon.save."
            )


def bake(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    budget: int,
    side: Side = "query",
    prompt: str = "",
    mark_span: bool = False,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer with one reading in its post-processor: plain `tokenizer(text)` then says all of it.

    The reading is a side's variant with a fixed instruction. The frames become special entries of a TemplateProcessing
    that names `$A` once for every copy; the slot's space becomes a normalizer. `budget` is the tokens of one copy. A
    text far longer is cut by a normalizer, because truncation pairs every cut-off part of one copy with every one of
    the other: time and memory by the square (20,000 words: 2.3 s and a gigabyte). `mark_span` gives the pooled tokens
    the type id 1.
    """
    piece_tokenizer = PieceTokenizer(tokenizer)
    specials = piece_tokenizer.specials
    pieces = rendered(template.pieces(side), prompt)
    single: list[dict[str, Any]] = []
    entries: dict[str, dict[str, Any]] = {}

    def add(name: str, ids: list[int], *, pooled: bool = False) -> None:
        if ids:
            entries[name] = {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
            single.append({"SpecialToken": {"id": name, "type_id": int(pooled and mark_span)}})

    add("bos", [] if specials.bos is None else [specials.bos])
    for number, piece in enumerate(pieces):
        if piece.kind == "frame":
            ids = piece_tokenizer.frame(piece.content, first=number == 0 or piece.parted)
            closes = not template.eos and number == len(pieces) - 1  # its last token is pooled
            add(f"frame{number}", ids[: len(ids) - closes])
            add(f"last{number}", ids[len(ids) - closes :], pooled=True)
        elif piece.kind == "prompt":
            add(f"prompt{number}", piece_tokenizer.instruction(piece.fill(prompt), first=number == 0 or piece.parted))
        else:
            single.append({"Sequence": {"id": "A", "type_id": int(piece.pooled and mark_span)}})
    add("eos", [specials.closing] if template.eos else [], pooled=True)

    first_text = next(number for number, piece in enumerate(pieces) if piece.kind == "text")
    raw = plain_text(parts_of(tokenizer.backend_tokenizer))
    raw = raw if first_text == 0 or pieces[first_text].parted else without_prefix(raw)
    raw["normalizer"] = _before(raw["normalizer"], _filling(pieces[first_text], CHARACTERS_A_TOKEN * budget))
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    raw["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": entries}
    return with_backend(tokenizer, assembled(tokenizer.backend_tokenizer, raw))


def with_backend(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerBase:
    """Return the tokenizer standing on another backend, user text being text to it."""
    compat.set_backend(tokenizer, backend)
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs["split_special_tokens"] = True
    return tokenizer


def _filling(slot: Piece, most: int) -> list[dict[str, Any]]:
    """Return the normalizers that do what `Piece.fill` does."""
    # \K keeps what stands before it; a repeat counts to 100,000 at most, so a longer one is a repeat of repeats
    whole, rest = divmod(most, _REPEAT)
    keep = rf"\A(?m:(?:.{{{_REPEAT}}}){{{whole}}}.{{{rest}}})\K(?m:.+)"
    cut = {"type": "Replace", "pattern": {"Regex": keep}, "content": ""}
    if not slot.space:
        return [cut]
    strip = {"type": "Replace", "pattern": {"Regex": r"\A +"}, "content": ""}
    return [strip, cut, {"type": "Prepend", "prepend": " "}]


def _before(own: dict[str, Any] | None, added: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a normalizer that does the added ones first."""
    kept = own["normalizers"] if own and own["type"] == "Sequence" else [own] if own else []
    return {"type": "Sequence", "normalizers": [*added, *kept]}
