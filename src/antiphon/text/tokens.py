"""From a template and texts to token ids and pooled spans; and the special tokens around them.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.text.pieces import Piece, rendered
from antiphon.text.template import SIDES, Side, Template, no_prompt_slot
from antiphon.text.tokenizer_json import assembled, parts_of, plain_text, without_prefix

CHARACTERS_A_TOKEN = 32
"""A text is cut to so many characters for every token that it may have, before it is tokenised: a giant costs no more
than a long text. Real text has 3 to 5 characters a token."""
REMEMBERED = 64
"""Frames and instructions whose ids are kept; more than a model meets in practice."""


@dataclass(frozen=True)
class Sequenced:
    """The token ids of one text in its template, and which of them are pooled."""

    ids: list[int]
    pooled: list[bool]


@dataclass(frozen=True)
class Specials:
    """The tokens that open and close every sequence; a family without a BOS has none."""

    bos: int | None
    eos: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, eos: bool = True) -> Specials:
        """Read them off a tokenizer: BOS where its own post-processor adds one, EOS always.

        Raises ModelError for a tokenizer that is none of tokenizer.json, or has no EOS though `eos` asks for one.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{tokenizer.name_or_path} has no fast tokenizer (tokenizer.json), which templates need.")
        closing = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else None
        if eos and closing is None:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path} names no EOS token; set eos_token in its config, or take "
                "a template with eos = false."
            )
        opening = tokenizer.backend_tokenizer.encode("x", add_special_tokens=True).ids
        bos = tokenizer.bos_token_id
        return cls(bos if isinstance(bos, int) and opening[:1] == [bos] else None, closing)

    @property
    def closing(self) -> int:
        """The EOS of a sequence that needs one; ModelError where there is none."""
        if self.eos is None:
            raise ModelError("The tokenizer names no EOS token; set eos_token in its config.")
        return self.eos


def check_ids(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise a ModelError that names the first token a text can become for which the embeddings (rows, D) have no row.

    Added tokens with visible characters are never made of a text: of those only BOS and EOS matter.
    """
    specials = Specials.of(tokenizer, eos=False)
    used = {"BOS": specials.bos, "EOS": specials.eos}
    for name, index in used.items():
        if index is not None and index >= rows:
            raise ModelError(
                f"{name} of {tokenizer.name_or_path} is {tokenizer.convert_ids_to_tokens(index)!r} (id {index}), "
                f"and the model's embeddings have {rows} rows; name a token of the model as {name.lower()}_token in "
                "tokenizer_config.json, or resize the embeddings and train them."
            )
    if len(tokenizer) <= rows:
        return
    visible = {token for token in tokenizer.get_added_vocab() if token.strip()}
    vocabulary = tokenizer.get_vocab()
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= rows and token not in visible)
    if beyond:
        raise ModelError(
            f"The tokenizer of {tokenizer.name_or_path} has ids up to {beyond[-1][0]} ({beyond[0][1]!r} is the first "
            f"too many), and the model's embeddings have {rows} rows; take the tokenizer that the model came with."
        )


def check_frames(template: Template, tokenizer: PieceTokenizer, rows: int) -> None:
    """Raise a ModelError where the words of a template become a token that the embeddings (rows, D) have no row for."""
    for side in SIDES:
        for piece in template.pieces(side):
            if piece.kind == "frame" and max(tokenizer.frame(piece.content, first=False), default=0) >= rows:
                raise ModelError(
                    f"Template {template.name!r} says {piece.content!r:.80}, which holds a token beyond the "
                    f"{rows} rows of the model's embeddings; take another template."
                )


class PieceTokenizer:
    """Tokenises pieces so that, joined, they read as the whole string would.

    Only the first piece of a sequence gets the prefix that some tokenizers put before a text (Metaspace and its kin).
    What a user types is text even where it spells a special token; frames may hold special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.specials = Specials.of(tokenizer, eos=False)
        backend = tokenizer.backend_tokenizer
        parts = plain_text(parts_of(backend))
        self._text = _first_and_inner(backend, parts)
        # a second pair, because the switch below belongs to the whole object and threads may share it
        self._frame = _first_and_inner(backend, parts)
        for text_tokenizer in self._text.values():
            text_tokenizer.encode_special_tokens = True
        self._known: dict[tuple[str, str, bool], list[int]] = {}

    def frame(self, words: str, *, first: bool) -> list[int]:
        """Return the ids of a frame."""
        return self._remembered("frame", self._frame[first], words, first)

    def instruction(self, words: str, *, first: bool) -> list[int]:
        """Return the ids of an instruction."""
        return self._remembered("instruction", self._text[first], words, first)

    def texts(self, texts: Sequence[str], *, first: bool) -> list[list[int]]:
        """Return the ids of what users typed, B lists."""
        return [encoding.ids for encoding in self._text[first].encode_batch_fast(list(texts), add_special_tokens=False)]

    def _remembered(self, kind: str, tokenizer: Tokenizer, words: str, first: bool) -> list[int]:
        key = (kind, words, first)
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = tokenizer.encode(words, add_special_tokens=False).ids
        return self._known[key]


def _first_and_inner(backend: Tokenizer, parts: dict[str, Any]) -> dict[bool, Tokenizer]:
    """Return the tokenizer of a sequence's first piece (True) and that of every other (False); often they are one."""
    # a template in the post-processor would say the text twice, special tokens asked for or not
    first = {**parts, "post_processor": None}
    inner = without_prefix(first)
    tokenizer = assembled(backend, inner)
    return {True: tokenizer if first == inner else assembled(backend, first), False: tokenizer}


@dataclass(frozen=True)
class LengthBudget:
    """What a template leaves for the text: the rule of `max_tokens`, which counts everything with one copy."""

    overhead: int
    """Tokens that are no text: BOS, EOS, frames, instruction."""
    budget: int
    """Tokens that each copy of the text may have."""
    copies: int

    @property
    def longest(self) -> int:
        """The most tokens that a sequence can have."""
        return self.overhead + self.budget * self.copies

    @classmethod
    def of(
        cls, template: Template, tokenizer: PieceTokenizer, side: Side, max_tokens: int, *, prompt: str = ""
    ) -> LengthBudget:
        """Measure it; ConfigError where nothing is left for a text."""
        pieces = rendered(template.pieces(side), prompt)
        fixed = _fixed_ids(pieces, tokenizer, prompt)
        overhead = sum(map(len, fixed.values())) + template.eos + (tokenizer.specials.bos is not None)
        copies = template.copies(side)
        budget = (max_tokens - overhead) // (copies if template.compute_matched else 1)
        if budget < 1:
            raise ConfigError(
                f"Template {template.name!r} takes {overhead} tokens with its instruction ({prompt!r:.60}), which "
                f"leaves no room for a text in max_tokens={max_tokens}; shorten the instruction or raise max_tokens."
            )
        return cls(overhead, budget, copies)


def sequences(
    texts: Sequence[str], template: Template, tokenizer: PieceTokenizer, *, prompt: str, side: Side, max_tokens: int
) -> list[Sequenced]:
    """Return ids and pooled marks for every text; the rules are those of docs/templates.md.

    `max_tokens` counts a sequence with one copy of the text; every copy is cut alike.
    """
    if prompt and not template.takes_instruction(side):
        raise ConfigError(no_prompt_slot(template.name, side))
    lengths = LengthBudget.of(template, tokenizer, side, max_tokens, prompt=prompt)
    pieces = rendered(template.pieces(side), prompt)
    fixed = _fixed_ids(pieces, tokenizer, prompt)
    # copies that are written alike are tokenised once
    forms = {_form(number, piece): piece for number, piece in enumerate(pieces) if piece.kind == "text"}
    most = CHARACTERS_A_TOKEN * lengths.budget
    ids = {
        form: tokenizer.texts([piece.fill(text, most=most) for text in texts], first=form[0])
        for form, piece in forms.items()
    }

    def parts(row: int) -> Iterator[tuple[list[int], bool]]:
        for number, piece in enumerate(pieces):
            part = ids[_form(number, piece)][row][: lengths.budget] if piece.kind == "text" else fixed[number]
            yield part, piece.pooled

    return [_join(parts(row), tokenizer.specials, eos=template.eos) for row in range(len(texts))]


def _form(number: int, piece: Piece) -> tuple[bool, bool]:
    """Return how a piece is written: as the first of a sequence or not, with a space before it or not."""
    return number == 0 or piece.parted, piece.space


def _fixed_ids(pieces: Sequence[Piece], tokenizer: PieceTokenizer, prompt: str) -> dict[int, list[int]]:
    """Return the ids of every piece that is no text, by its place."""
    return {
        number: tokenizer.frame(piece.content, first=number == 0 or piece.parted)
        if piece.kind == "frame"
        else tokenizer.instruction(piece.fill(prompt), first=number == 0 or piece.parted)
        for number, piece in enumerate(pieces)
        if piece.kind != "text"
    }


def _join(parts: Iterator[tuple[list[int], bool]], specials: Specials, *, eos: bool) -> Sequenced:
    ids: list[int] = [] if specials.bos is None else [specials.bos]
    pooled = [False] * len(ids)
    for part, marked in parts:
        ids.extend(part)
        pooled.extend([marked] * len(part))
    if eos or not ids:  # an empty text alone has to be something
        ids.append(specials.closing)
        pooled.append(True)
    # the last token belongs to the span: mean = copy + EOS, last = EOS (Echo, reference parser); without EOS it is the
    # one whose state is asked for (PromptEOL), or the text's own
    pooled[-1] = True
    return Sequenced(ids, pooled)


def check_texts(texts: Sequence[object]) -> list[str]:
    """Return the texts, or raise a DataError that names the first that is no string."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"Text {number} is {text!r:.60} of type {type(text).__name__}; texts must be strings.")
    return [str(text) for text in texts]
