"""Where two models differ: the causes that are common, tested one by one, and named where one explains it all.

A cause is tested by making the mistake on purpose: if model A without its EOS gives B's vectors, B loses the EOS. So
one side may be a server of which nothing but vectors is seen. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError, DataError, ParityError
from antiphon.model import variants
from antiphon.model.parity import FEWEST, LIMITS, Parity, Vectors, compare, dtype_of, encode, spread_of, unlike_texts
from antiphon.model.rounding import MARGIN, Rounding, exact
from antiphon.model.server import Endpoint
from antiphon.model.trials import HALVES, Sides, Trial, trials
from antiphon.model.unit_vectors import apart, is_unit, unit
from antiphon.text.template import Side

Progress = Callable[[int, int | None], None]

_LONGEST = 2048
_TELLING = 4
_HOPELESS = 2.0
"""A mistake that leaves so many times the limit between a few texts is not made: the error is the largest of all."""


@dataclass(frozen=True)
class Cause:
    """A difference that was tested: `explains` says whether making it gives the other side's vectors."""

    topic: str
    """That of a trial, or of two."""
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
    cutting: bool = False
    """Whether only texts that are cut differ."""


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
    telling: Sequence[int]
    """The numbers of the texts that differ most."""
    spread: float
    """Of the other side's vectors."""
    tell: Progress


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether B gives A's vectors, and what the causes are looked for with where it does not."""

    parity: Parity
    notes: list[str]
    a: SentenceTransformer
    b: SentenceTransformer | Endpoint
    side: Side
    names: tuple[str, str]
    texts: Sequence[str]
    uncut: int
    """How many of the texts, the first ones, A takes whole."""
    of_a: Vectors
    of_b: Vectors


def diagnose(
    a: SentenceTransformer,
    b: SentenceTransformer | Endpoint,
    *,
    side: Side = "query",
    names: tuple[str, str] = ("A", "B"),
    limit: float | None = None,
    on_progress: Progress | None = None,
) -> Diagnosis:
    """Compare two models, or a model and a server, and name the cause where they differ: `judge`, then `causes_of`."""
    return causes_of(judge(a, b, side=side, names=names, limit=limit), on_progress=on_progress)


def judge(
    a: SentenceTransformer,
    b: SentenceTransformer | Endpoint,
    *,
    side: Side = "query",
    names: tuple[str, str] = ("A", "B"),
    limit: float | None = None,
) -> Verdict:
    """Compare two models, or a model and a server.

    A server is asked for the plain texts: what it does to them by itself is what is compared with the model's `side`.
    A counts in float32. `limit` is the error against spread that counts as equal; without it that of float32, or where
    B or A computes in 16 bits, or B is a server, what A's own rounding in 16 bits makes room for.
    Raises ParityError for vectors that cannot be compared or a server that does not answer.
    """
    texts, uncut = _texts(a, side)
    notes: list[str] = []
    of_a = exact(a, texts, side)
    if not isinstance(b, SentenceTransformer):
        of_b, refused = _from_server(b, texts, uncut)
        if refused:
            notes.append(f"{names[1]} refuses a text that {names[0]} cuts: {refused}")
            texts, of_a = texts[:uncut], of_a[:uncut]
    else:
        of_b = encode(b, texts, side=side)
    parity = compare(of_a, of_b, limit=LIMITS["float32"] if limit is None else limit)
    dtypes = _possible_dtypes(a, b)
    if limit is None and not parity.equal and dtypes:
        rounding = Rounding.of(a, texts, side, dtypes, exact_ND=of_a)
        parity = replace(parity, limit=rounding.limit)
        notes.append(
            f"rounding: {names[0]}'s own in {' or '.join(dtypes)} moves its float32 vectors by {rounding.error:.1e} of "
            f"their spread, so {MARGIN} times that counts as equal"
        )
    notes += _lengths(of_a, of_b, names)
    return Verdict(
        parity=parity, notes=notes, a=a, b=b, side=side, names=names, texts=texts, uncut=uncut, of_a=of_a, of_b=of_b
    )


def causes_of(verdict: Verdict, *, on_progress: Progress | None = None) -> Diagnosis:
    """Name the cause of a difference; `on_progress` is told how many trials are done and how many there are."""
    parity, uncut, texts, names = verdict.parity, verdict.uncut, verdict.texts, verdict.names
    of_a, of_b = verdict.of_a, verdict.of_b
    if parity.equal:
        return Diagnosis(parity, notes=verdict.notes)
    # where texts that nobody cuts agree, only where to cut is left; where they do not, the cut one would hide the cause
    cutting = uncut >= FEWEST and compare(of_a[:uncut], of_b[:uncut], limit=parity.limit).equal
    compared = texts if cutting or uncut < FEWEST else texts[:uncut]
    distances = np.linalg.norm(unit(of_a[: len(compared)]) - unit(of_b[: len(compared)]), axis=1)
    telling = np.argsort(-distances)[:_TELLING].tolist()
    tell = on_progress or (lambda done, total: None)
    seen = _Seen(texts, compared, verdict.side, parity, cutting, telling, spread_of(unit(of_b)), tell)
    peer = verdict.b if isinstance(verdict.b, SentenceTransformer) else None
    tested = _search(Sides(verdict.a, *names, peer), seen, of_b)
    if peer is not None and not any(cause.explains for cause in tested):
        tested += _search(Sides(peer, *names[::-1], verdict.a), seen, of_a)
    return Diagnosis(parity, [cause for cause in tested if cause.explains], tested, verdict.notes, cutting)


def _possible_dtypes(a: SentenceTransformer, b: SentenceTransformer | Endpoint) -> tuple[str, ...]:
    """Return the 16-bit dtypes that may be at work: of a server nobody knows."""
    names = tuple(HALVES.values())
    return tuple(one for one in names if not isinstance(b, SentenceTransformer) or one in (dtype_of(a), dtype_of(b)))


def _search(sides: Sides, seen: _Seen, wanted: Vectors) -> list[Cause]:
    """Try what the other side may do otherwise, one thing at a time and then two."""
    singles = [
        trial
        for trial in trials(sides, seen.texts[0], seen.side)
        if (trial.topic in ("truncation", "dtype")) >= seen.cutting
    ]
    tested = list(_tests(sides.model, seen, singles, wanted))
    if any(cause.explains for cause in tested):
        return tested
    doubles = (first.joined(second) for first, second in combinations(singles, 2))
    return tested + list(_tests(sides.model, seen, [trial for trial in doubles if trial is not None], wanted))


def _tests(model: SentenceTransformer, seen: _Seen, trials: Sequence[Trial], wanted: Vectors) -> Iterator[Cause]:
    for done, trial in enumerate(trials):
        seen.tell(done, len(trials))
        yield _test(model, seen, trial, wanted)
    seen.tell(len(trials), len(trials))


def _test(model: SentenceTransformer, seen: _Seen, trial: Trial, wanted: Vectors) -> Cause:
    """Make the mistake and compare; a dtype must bring the two nearer as well, since its limit is wide.

    The texts that differ most come first: where those are not explained the others are not embedded.
    """
    limit, texts = seen.before.limit, seen.texts
    if trial.topic == "dtype":  # rounding depends on the batch, so the same texts again
        limit, texts = min(LIMITS["bfloat16"], seen.before.error_against_spread / 2), seen.everything
    try:
        if trial.topic != "dtype":
            few = variants.encode(model, [texts[row] for row in seen.telling], seen.side, trial.variant)
            error = apart(few, wanted[list(seen.telling)]) / seen.spread
            if error > _HOPELESS * limit:
                return Cause(trial.topic, trial.sentence, Parity(-1.0, error, limit, len(few)))
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
    unit_a = is_unit(of_a)
    if unit_a == is_unit(of_b):
        return []
    normal, raw = names if unit_a else names[::-1]
    return [f"normalisation: {normal} gives vectors of length 1, {raw} does not; cosines agree, dot products do not"]


def too_long(model: SentenceTransformer, side: Side) -> list[str]:
    """Return a text that the model cuts; none where its length is not worth a text that reaches it."""
    most = model.max_seq_length
    if not most or most > _LONGEST:
        return []
    words = " ".join(unlike_texts())
    text = " ".join([words] * (5 * most // len(words) + 1))
    return [text] if variants.is_cut(model, text, side) else []


def _texts(model: SentenceTransformer, side: Side) -> tuple[list[str], int]:
    """Return the texts to compare on, those first that the model takes whole, and how many they are."""
    texts = [*unlike_texts(), *too_long(model, side)]
    if len(texts) == len(unlike_texts()):
        return texts, len(texts)
    cut = [variants.is_cut(model, text, side) for text in texts]
    texts = [text for text, long in sorted(zip(texts, cut, strict=True), key=lambda pair: pair[1])]
    return texts, cut.count(False)
