"""Variants of the echo prompt: the grammar of Echo, appendix D, by which the paper shows how little the words matter.

`{action} {object}{separator}{prefix 1}{text}{separator}{prefix 2}[{text}]`, seeded. The paper prints examples of its
lists, not the lists; what it does not print is filled in by kind and may differ from what was run there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from antiphon.errors import ConfigError
from antiphon.text.template import Template

ECHO_ACTIONS = ("Repeat", "Rewrite", "Rephrase", "Fill in the blank in")
CLASSICAL_ACTIONS = ("Write", "Say", "Complete", "Explain")
OBJECTS = ("the paragraph", "the response", "the sentence", "the query", "the text", "the prompt")
SEPARATORS = (":", ",", "\n", ".", "::", " —", " @", "!")
ENUMERATIONS: tuple[tuple[str, str], ...] = (
    ("1)", "2)"),
    ("A]", "B]"),
    ("(A)", "(B)"),
    ("<I>", "<II>"),
    ("a)", "b)"),
)
CASES: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper, str.title)


def variants(kind: str, count: int, *, seed: int = 0) -> list[Template]:
    """Return `count` different templates of a kind ("echo" or "classical"), the same for the same seed.

    Actions take turns, so that every action stands in nearly as many variants, as in the paper. ConfigError for an
    unknown kind or for more variants than the grammar holds.
    """
    if kind not in MAKERS:
        raise ConfigError(f"There are no prompt variants of kind {kind!r}; take one of {', '.join(MAKERS)}.")
    actions, make = MAKERS[kind]
    generator = random.Random(f"{kind}-{seed}")
    found: dict[str, None] = {}
    for _ in range(1000 + 20 * count):
        if len(found) == count:
            break
        found.setdefault(make(actions[len(found) % len(actions)], generator))
    else:
        raise ConfigError(f"The grammar holds fewer than {count} variants of kind {kind!r}; ask for fewer.")
    return [Template(f"{kind}-variant-{number}", query) for number, query in enumerate(found)]


def _opening(action: str, generator: random.Random) -> tuple[str, str]:
    case, separator = generator.choice(CASES), generator.choice(SEPARATORS)
    return case(f"{action} {generator.choice(OBJECTS)}") + separator, separator


def _echo(action: str, generator: random.Random) -> str:
    opening, separator = _opening(action, generator)
    word = generator.choice(OBJECTS).removeprefix("the ")
    first, second = generator.choice(ENUMERATIONS)
    between = separator if separator == "\n" else separator + " "
    start = opening if separator == "\n" else opening + " "
    return f"{start}{word} {first} {{text}}{between}{word} {second} [{{text}}]"


def _classical(action: str, generator: random.Random) -> str:
    opening, separator = _opening(action, generator)
    return f"{opening}{'' if separator == chr(10) else ' '}[{{text}}]"


MAKERS: Mapping[str, tuple[tuple[str, ...], Callable[[str, random.Random], str]]] = {
    "echo": (ECHO_ACTIONS, _echo),
    "classical": (CLASSICAL_ACTIONS, _classical),
}
