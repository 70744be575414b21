"""A template string cut into pieces: frames, slots, the clause of the instruction, the pooled copies."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from antiphon.errors import ConfigError

_Slot = Literal["prompt", "text", ""]
_SLOTS: Mapping[str, _Slot] = {"prompt": "prompt", "text": "text", "": ""}


@dataclass(frozen=True)
class Piece:
    """A part of a template that is tokenised on its own."""

    kind: Literal["frame", "prompt", "text"]
    content: str = ""
    """The words of a frame; empty for a slot."""
    space: bool = False
    """Whether the slot owns the one space before it."""
    pooled: bool = False
    clause: bool = False
    """Whether the piece goes when there is no instruction."""
    fixed: bool = False
    """Whether a frame ends in `{}`: what stands behind it on its line may be a clause, the frame itself is none."""
    behind_clause: bool = False
    """Whether the instruction's clause ends where this piece begins: the space between goes with the clause."""
    parted: bool = False
    """Whether the piece is tokenised as if it began the sequence."""

    def fill(self, value: str, *, most: int | None = None) -> str:
        """Return the string that a slot becomes: the text after its one space, or nothing for an empty text.

        `most` cuts a text that is far too long, in characters, before anything is done with it.
        """
        bare = value.lstrip(" ")[:most]
        return (" " + bare if bare else "") if self.space else value[:most]


@lru_cache(maxsize=256)  # a template is asked for its pieces at every batch
def parse(source: str, where: str, *, clause_space: bool = False, alone: bool = False) -> tuple[Piece, ...]:
    """Return the pieces of a template string; `where` names it in the ConfigError that a bad one raises.

    `clause_space` keeps the space behind a clause also where the clause goes; `alone` marks the pieces that are
    tokenised as if they began the sequence: all but a frame behind the instruction, up to `{}`.
    """
    pieces: list[Piece] = []
    for literal, slot in _fields(source, where):
        marked = slot == "text" and literal.endswith("[")
        words = literal[:-1] if marked else literal
        if pieces and pieces[-1].pooled:
            if not words.startswith("]"):
                raise ConfigError(f"'[{{text}}' is not closed by ']' in {where}: {source!r}.")
            words = words[1:]
        space = slot in ("prompt", "text") and words.endswith(" ")
        words = words[:-1] if space else words
        pieces.append(Piece("frame", words, fixed=slot == ""))
        if slot:
            pieces.append(Piece(slot, space=space, pooled=marked))
    pieces = _with_clause([piece for piece in pieces if piece.kind != "frame" or piece.content])
    if not clause_space:
        pieces = [
            replace(piece, behind_clause=not piece.clause and number > 0 and pieces[number - 1].clause)
            for number, piece in enumerate(pieces)
        ]
    if alone:
        pieces = [
            replace(piece, parted=not (piece.kind == "frame" and number > 0 and pieces[number - 1].kind == "prompt"))
            for number, piece in enumerate(pieces)
        ]
    texts = [number for number, piece in enumerate(pieces) if piece.kind == "text"]
    if not texts:
        raise ConfigError(f"There is no {{text}} slot in {where}: {source!r}; write {{text}} where the text goes.")
    if sum(piece.kind == "prompt" for piece in pieces) > 1:
        raise ConfigError(f"{{prompt}} stands more than once in {where}: {source!r}; the instruction is said once.")
    if not any(piece.pooled for piece in pieces):
        pieces[texts[-1]] = replace(pieces[texts[-1]], pooled=True)
    return tuple(pieces)


def _fields(source: str, where: str) -> list[tuple[str, _Slot | None]]:
    """Split a template at its slots and at `{}` into (words before, slot); the last slot is None."""
    try:
        parsed = list(string.Formatter().parse(source))
    except ValueError as error:
        raise ConfigError(f"{where} has a stray brace ({error}): {source!r}; write {{{{ for a brace.") from None
    fields: list[tuple[str, _Slot | None]] = []
    words = ""
    for literal, name, spec, conversion in parsed:
        words += literal
        if name is None:  # an escaped brace ends a literal without a slot
            continue
        slot = _SLOTS.get(name)
        if slot is None or spec or conversion:
            raise ConfigError(f"{where} has an unknown slot {{{name}}}: {source!r}; slots are {{prompt}} and {{text}}.")
        fields.append((words, slot))
        words = ""
    return [*fields, (words, None)]


def _with_clause(pieces: list[Piece]) -> list[Piece]:
    """Mark the clause of `{prompt}`: its line with the newline, or up to a space where a slot shares the line."""
    out: list[Piece] = []
    for number, piece in enumerate(pieces):
        before = number > 0 and pieces[number - 1].kind == "prompt"
        after = number + 1 < len(pieces) and pieces[number + 1].kind == "prompt" and not piece.fixed
        if piece.kind == "prompt":
            out.append(replace(piece, clause=True))
        elif piece.kind == "frame" and (before or after):
            out.extend(_split_at_clause(piece.content, ends=before, starts=after))
        else:
            out.append(piece)
    return out


def _split_at_clause(words: str, *, ends: bool, starts: bool) -> list[Piece]:
    """Split the words between a slot and its neighbour into what belongs to the clause and what does not."""
    if ends:
        newline = words.find("\n") + 1
        cut = newline or next((i for i, c in enumerate(words) if c == " "), len(words))
        parts = [(words[:cut], True), (words[cut:], False)]
    else:
        cut = words.rfind("\n") + 1
        parts = [(words[:cut], False), (words[cut:], True)] if starts else [(words, False)]
    return [Piece("frame", part, clause=clause) for part, clause in parts if part]


def rendered(pieces: tuple[Piece, ...], prompt: str) -> tuple[Piece, ...]:
    """Return the pieces as they are said: the clause in or out, neighbouring frames joined, no space at the start.

    A slot that comes to stand behind a frame by this owns the one space before it, as any other slot does. The space
    behind a clause that goes is left only where it parts words. An instruction that ends in a colon takes the place
    of a `;` behind its slot: LLM2Vec and Anchor train with the one and are evaluated with the other.
    """
    out: list[Piece] = []
    colon = prompt.endswith(":")
    for number, piece in enumerate(pieces):
        if piece.clause and not prompt:
            continue
        if not out or (piece.behind_clause and not prompt and _begins(out[-1])):
            words = piece.content.removeprefix("\n") if piece.behind_clause else piece.content
            piece = replace(piece, space=False, content=words.removeprefix(" "))
        if colon and number and pieces[number - 1].kind == "prompt":
            piece = replace(piece, content=piece.content.removeprefix(";"))
        if piece.kind == "frame" and out and out[-1].kind == "frame" and not piece.parted:
            out[-1] = replace(out[-1], content=out[-1].content + piece.content, fixed=piece.fixed)
        elif piece.kind == "frame" and not piece.content:
            continue
        elif piece.kind != "frame" and not piece.space and not piece.parted and out and out[-1].content.endswith(" "):
            out[-1] = replace(out[-1], content=out[-1].content[:-1])
            out.append(replace(piece, space=True))
        else:
            out.append(piece)
    return tuple(piece for piece in out if piece.kind != "frame" or piece.content)


def _begins(before: Piece) -> bool:
    """Return whether a clause that stood behind this piece began its line, so that no space is left of it."""
    return before.kind == "frame" and (before.fixed or before.content[-1:].isspace())
