"""Where two models differ: the causes that are common, tested one by one, and named where one explains it all.

A cause is tested by making the mistake on purpose: if model A without its EOS gives B's vectors, B loses the EOS. So
one side may be a server of which nothing but vectors is seen. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError, DataError, ParityError
from antiphon.model import variants
from antiphon.model.parity import FEWEST, LIMITS, Parity, Vectors, compare, dtype_of, encode, limit_of, unlike_texts
from antiphon.model.prompts import prompt_of
from antiphon.model.server import Endpoint
from antiphon.model.variants import Variant
from antiphon.text.template import Side, fills_slots, template_of

LENGTHS = (64, 128, 256, 512, 1024, 2048)
HALVES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
_STOCK_POOLINGS = {"lasttoken": "last", "cls": "first", "weightedmean": "weighted_mean"}
_UNIT = 1e-2
_LONGEST = 2048


@dataclass(frozen=True)
class Cause:
    """A difference that was tested: `explains` says whether making it gives the other side's vectors."""

    topic: str
    """EOS, BOS, prompt, pooling, dtype or truncation."""
    sentence: str
    parity: Parity

    @property
    def explains(self) -> bool:
        """Whether the two are the same with it."""
        return self.parity.equal


@dataclass(frozen=True)
class Diagnosis:
    """What came out of comparing A and B."""

    parity: Parity
    causes: list[Cause] = field(default_factory=list)
    """Those that explain the difference; empty where there is none, or no known one."""
    tested: list[Cause] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What makes no difference to a cosine: lengths of vectors, texts that a server refuses."""


@dataclass(frozen=True)
class _Trial:
    topic: str
    sentence: str
    variant: Variant


@dataclass(frozen=True)
class _Seen:
    """What every trial is made on."""

    everything: Sequence[str]
    texts: Sequence[str]
    """The first of them: those that agree but for the cause."""
    side: Side
    before: Parity
    """With the limit of the comparison."""
    cutting: bool
    """Whether only texts that are cut differ."""


def diagnose(
    a: SentenceTransformer,
    b: SentenceTransformer | Endpoint,
    *,
    side: Side = "query",
    names: tuple[str, str] = ("A", "B"),
    limit: float | None = None,
) -> Diagnosis:
    """Compare two models, or a model and a server, and name the cause where they differ.

    A server is asked for the plain texts: what it does to them by itself is what is compared with the model's `side`.
    `limit` is the error against spread that counts as equal; without it that of the coarser dtype.
    Raises ParityError for vectors that cannot be compared or a server that does not answer.
    """
    texts, uncut = _texts(a, side)
    notes: list[str] = []
    of_a = encode(a, texts, side=side)
    if not isinstance(b, SentenceTransformer):
        of_b, refused = _from_server(b, texts, uncut)
        if refused:
            notes.append(f"{names[1]} refuses a text that {names[0]} cuts: {refused}")
            texts, of_a = texts[:uncut], of_a[:uncut]
    else:
        of_b = encode(b, texts, side=side)
    if limit is None:
        limit = max(limit_of(model) for model in (a, b) if isinstance(model, SentenceTransformer))
    parity = compare(of_a, of_b, limit=limit)
    notes += _lengths(of_a, of_b, names)
    if parity.equal:
        return Diagnosis(parity, notes=notes)
    # where texts that nobody cuts agree, only where to cut is left; where they do not, the cut one would hide the cause
    cutting = uncut >= FEWEST and compare(of_a[:uncut], of_b[:uncut], limit=limit).equal
    seen = _Seen(texts, texts if cutting or uncut < FEWEST else texts[:uncut], side, parity, cutting)
    tested = _search(a, seen, of_b, names, b if isinstance(b, SentenceTransformer) else None)
    if isinstance(b, SentenceTransformer) and not any(cause.explains for cause in tested):
        tested += _search(b, seen, of_a, names[::-1], a)
    return Diagnosis(parity, [cause for cause in tested if cause.explains], tested, notes)


def _search(
    model: SentenceTransformer,
    seen: _Seen,
    wanted: Vectors,
    names: tuple[str, str],
    peer: SentenceTransformer | None,
) -> list[Cause]:
    """Try what the other side may do otherwise, one thing at a time and then two."""
    trials = [
        trial for trial in _trials(model, seen, names, peer) if (trial.topic in ("truncation", "dtype")) >= seen.cutting
    ]
    tested = [_test(model, seen, trial, wanted) for trial in trials]
    if any(cause.explains for cause in tested):
        return tested
    doubles = (_both(*pair) for pair in combinations(trials, 2))
    return tested + [_test(model, seen, trial, wanted) for trial in doubles if trial is not None]


def _trials(
    model: SentenceTransformer, seen: _Seen, names: tuple[str, str], peer: SentenceTransformer | None
) -> Iterator[_Trial]:
    """Yield what the second of `names` may do otherwise than the first, whose model this is, one thing each."""
    own, other = names
    yield from _ends(model, seen.texts[0], seen.side, own, other)
    yield from _prompts(model, seen.side, own, other, peer)
    mode = str(getattr(model[1], "pooling_mode", "otherwise"))
    same = "last" if mode == "last" else "" if fills_slots(model) else _STOCK_POOLINGS.get(mode, mode)
    for pooling in variants.POOLINGS:
        if pooling != same:
            sentence = f"{other} pools {pooling.replace('_', ' ')} over all tokens, {own} pools {mode}"
            yield _Trial("pooling", sentence, Variant(pooling=pooling))
    for dtype, name in HALVES.items():
        if model.dtype != dtype and (peer is None or peer.dtype == dtype):
            yield _Trial("dtype", f"{other} computes in {name}, {own} in {dtype_of(model)}", Variant(dtype=dtype))
    lengths = LENGTHS if peer is None else (peer.max_seq_length,)
    for length in lengths:
        if length and length != model.max_seq_length:
            sentence = f"{other} cuts a text at {length} tokens, {own} at {model.max_seq_length}"
            yield _Trial("truncation", sentence, Variant(max_tokens=length))


def _ends(model: SentenceTransformer, text: str, side: Side, own: str, other: str) -> Iterator[_Trial]:
    ids, _ = variants.tokens(model, text, prompt_of(model, side), side)
    for topic, end, there in (
        ("EOS", model.tokenizer.eos_token_id, ids[-1]),
        ("BOS", model.tokenizer.bos_token_id, ids[0]),
    ):
        if isinstance(end, int):
            present = there == end
            sentence = f"{other} loses the {topic} token that {own} has" if present else f"{other} adds {topic} tokens"
            variant = Variant(eos=not present) if topic == "EOS" else Variant(bos=not present)
            yield _Trial(topic, sentence, variant)


def _prompts(
    model: SentenceTransformer, side: Side, own: str, other: str, peer: SentenceTransformer | None
) -> Iterator[_Trial]:
    """Yield the prompts that may be at work: none, the other names', the peer's, the other side's variant."""
    here = prompt_of(model, side)
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt and prompt != here}
    if peer is not None and (theirs := prompt_of(peer, side)) not in (here, ""):
        prompts["own"] = theirs
    template = template_of(model)
    instructable = template is None or not fills_slots(model) or template.takes_instruction(side)
    if here:
        yield _Trial("prompt", f"{other} leaves out the prompt that {own} uses ({here!r:.60})", Variant(prompt=""))
    if instructable:
        for name, prompt in prompts.items():
            yield _Trial("prompt", f"{other} uses its {name} prompt ({prompt!r:.60})", Variant(prompt=prompt))
    if fills_slots(model) and template is not None and not template.one_variant:
        opposite: Side = "document" if side == "query" else "query"
        variant = Variant(side=opposite, prompt=prompt_of(model, opposite))
        yield _Trial("prompt", f"{other} reads texts as {own} reads a {opposite}", variant)


def _both(first: _Trial, second: _Trial) -> _Trial | None:
    variant = first.variant.joined(second.variant)
    doubtful = {"BOS", "dtype", "truncation"}  # seldom wrong together with another, and many to try
    if variant is None or first.topic == second.topic or {first.topic, second.topic} & doubtful:
        return None
    return _Trial(f"{first.topic} and {second.topic}", f"{first.sentence}, and {second.sentence}", variant)


def _test(model: SentenceTransformer, seen: _Seen, trial: _Trial, wanted: Vectors) -> Cause:
    """Make the mistake and compare; a dtype must bring the two nearer as well, since its limit is wide."""
    limit, texts = seen.before.limit, seen.texts
    if trial.topic == "dtype":  # rounding depends on the batch, so the same texts again
        limit, texts = min(LIMITS["bfloat16"], seen.before.error_against_spread / 2), seen.everything
    try:
        found = variants.encode(model, texts, seen.side, trial.variant)
        outcome = compare(found, wanted[: len(texts)], limit=limit)
    except (ConfigError, DataError, ParityError):  # such a model says nothing, or the same of all texts: not the cause
        outcome = Parity(-1.0, float("inf"), limit, len(texts))
    return Cause(trial.topic, trial.sentence, outcome)


def _from_server(server: Endpoint, texts: Sequence[str], uncut: int) -> tuple[Vectors, str]:
    """Return the server's vectors and, where it refuses the texts that are cut, its words and no vectors for those."""
    short = server.encode(texts[:uncut])
    try:
        rest = [server.encode(texts[uncut:])] if texts[uncut:] else []
    except DataError as error:
        return short, str(error)
    return np.concatenate([short, *rest]), ""


def _lengths(of_a: Vectors, of_b: Vectors, names: tuple[str, str]) -> list[str]:
    """Say where one side gives unit vectors and the other does not."""
    unit = [bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=_UNIT)) for vectors in (of_a, of_b)]
    if unit[0] == unit[1]:
        return []
    normal, raw = names if unit[0] else names[::-1]
    return [f"normalisation: {normal} gives vectors of length 1, {raw} does not; cosines agree, dot products do not"]


def _texts(model: SentenceTransformer, side: Side) -> tuple[list[str], int]:
    """Return the texts to compare on, those first that the model takes whole, and how many they are."""
    texts, most = unlike_texts(), model.max_seq_length
    words = " ".join(texts)
    if most and most <= _LONGEST:  # a longer limit is not worth a text that reaches it
        texts.append(" ".join([words] * (5 * most // len(words) + 1)))
        cut = [variants.is_cut(model, text, side) for text in texts]
        texts = [text for text, long in sorted(zip(texts, cut, strict=True), key=lambda pair: pair[1])]
        return texts, cut.count(False)
    return texts, len(texts)
