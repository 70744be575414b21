"""What the other side of a comparison may do otherwise than a model: one thing each, and two together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from antiphon.model import variants
from antiphon.model.parity import dtype_of
from antiphon.model.prompts import prompt_of
from antiphon.model.variants import Variant
from antiphon.text.template import Side, fills_slots, template_of

LENGTHS = (64, 128, 256, 512, 1024, 2048)
HALVES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
_STOCK_POOLINGS = {"lasttoken": "last", "cls": "first", "weightedmean": "weighted_mean"}
_ALONE = {"BOS", "dtype", "truncation", "letter case"}
"""Seldom wrong together with another, and many to try."""


@dataclass(frozen=True)
class Trial:
    """A mistake that is made on purpose."""

    topic: str
    """EOS, BOS, prompt, template, pooling, Dense, letter case, dtype or truncation."""
    sentence: str
    variant: Variant

    def joined(self, other: Trial) -> Trial | None:
        """Return both as one, None where they cannot be or are hardly ever."""
        variant = self.variant.joined(other.variant)
        if variant is None or self.topic == other.topic or {self.topic, other.topic} & _ALONE:
            return None
        return Trial(f"{self.topic} and {other.topic}", f"{self.sentence}, and {other.sentence}", variant)


@dataclass(frozen=True)
class Sides:
    """The two that are compared: a model, and what may be a model too."""

    model: SentenceTransformer
    own: str
    """What the model is called."""
    other: str
    peer: SentenceTransformer | None = None
    """The other one, where it is a model."""


def trials(sides: Sides, text: str, side: Side) -> Iterator[Trial]:
    """Yield what the other one may do otherwise, the likeliest first; `text` is any that is not cut."""
    yield from _ends(sides, text, side)
    yield from _prompts(sides, side)
    yield from _templates(sides)
    yield from _poolings(sides)
    model, own, other = sides.model, sides.own, sides.other
    if any(isinstance(module, Dense) for module in model):
        yield Trial("Dense", f"{other} leaves out the Dense module that {own} has", Variant(dense=False))
    yield Trial("letter case", f"{other} reads texts in lower case", Variant(text="lowered"))
    for dtype, name in HALVES.items():
        if model.dtype != dtype and (sides.peer is None or sides.peer.dtype == dtype):
            yield Trial("dtype", f"{other} computes in {name}, {own} in {dtype_of(model)}", Variant(dtype=dtype))
    yield from _lengths(sides)


def _ends(sides: Sides, text: str, side: Side) -> Iterator[Trial]:
    model, own, other = sides.model, sides.own, sides.other
    ids, _ = variants.tokens(model, text, prompt_of(model, side), side)
    for topic, end, there in (
        ("EOS", model.tokenizer.eos_token_id, ids[-1]),
        ("BOS", model.tokenizer.bos_token_id, ids[0]),
    ):
        if isinstance(end, int):
            present = there == end
            sentence = f"{other} loses the {topic} token that {own} has" if present else f"{other} adds {topic} tokens"
            variant = Variant(eos=not present) if topic == "EOS" else Variant(bos=not present)
            yield Trial(topic, sentence, variant)
            if topic == "BOS" and present:
                yield Trial(topic, f"{other} says the BOS token twice, {own} once", Variant(bos=2))


def _prompts(sides: Sides, side: Side) -> Iterator[Trial]:
    """Yield the prompts that may be at work: none, the other names', the peer's, the other side's variant."""
    model, own, other = sides.model, sides.own, sides.other
    here = prompt_of(model, side)
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt and prompt != here}
    if sides.peer is not None and (theirs := prompt_of(sides.peer, side)) not in (here, ""):
        prompts["own"] = theirs
    template = template_of(model)
    instructable = template is None or not fills_slots(model) or template.takes_instruction(side)
    if here:
        yield Trial("prompt", f"{other} leaves out the prompt that {own} uses ({here!r:.60})", Variant(prompt=""))
    if instructable:
        for name, prompt in prompts.items():
            yield Trial("prompt", f"{other} uses its {name} prompt ({prompt!r:.60})", Variant(prompt=prompt))
    if fills_slots(model) and template is not None and not template.one_variant:
        opposite: Side = "document" if side == "query" else "query"
        variant = Variant(side=opposite, prompt=prompt_of(model, opposite))
        yield Trial("prompt", f"{other} reads texts as {own} reads a {opposite}", variant)


def _templates(sides: Sides) -> Iterator[Trial]:
    model, own, other = sides.model, sides.own, sides.other
    template = template_of(model)
    if template is not None and (fills_slots(model) or template.name != "classical"):
        sentence = f"{other} reads the bare text, without the template that {own} puts around it ({template.name})"
        yield Trial("template", sentence, Variant(reading="bare"))
    if getattr(model.tokenizer, "chat_template", None):
        yield Trial("template", f"{other} puts texts into a chat, {own} does not", Variant(reading="chat"))


def _poolings(sides: Sides) -> Iterator[Trial]:
    model = sides.model
    mode = str(getattr(model[1], "pooling_mode", "otherwise"))
    same = "last" if mode == "last" else "" if fills_slots(model) else _STOCK_POOLINGS.get(mode, mode)
    for pooling in variants.POOLINGS:
        if pooling != same:
            sentence = f"{sides.other} pools {pooling.replace('_', ' ')} over all tokens, {sides.own} pools {mode}"
            yield Trial("pooling", sentence, Variant(pooling=pooling))


def _lengths(sides: Sides) -> Iterator[Trial]:
    """Yield lengths at which the text may be cut, or the sequence, at its end or at its beginning."""
    model, own, other = sides.model, sides.own, sides.other
    most = model.max_seq_length
    lengths = LENGTHS if sides.peer is None else (sides.peer.max_seq_length,)
    for length in lengths:
        if length and length != most:
            sentence = f"{other} cuts a text at {length} tokens, {own} at {most}"
            yield Trial("truncation", sentence, Variant(max_tokens=length))
    if sides.peer is not None:
        return
    for length in sorted({*LENGTHS, *([most] if most else [])}):
        sentence = f"{other} cuts the whole sequence at {length} tokens, and {own} the text in it"
        yield Trial("truncation", sentence, Variant(sequence=length))
        sentence = f"{other} cuts a sequence at its beginning, down to {length} tokens"
        yield Trial("truncation", sentence, Variant(sequence=-length))
