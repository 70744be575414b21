"""What show, search and the demo print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from antiphon.cli.report.terminal import console, say, table

if TYPE_CHECKING:
    from antiphon.corpus.hits import Hit
    from antiphon.corpus.lance_search import VectorIndex
    from antiphon.demo import Demo, Memory
    from antiphon.model.description import Description

_POOLED = "bold black on green"
_BRIEF = 3


def hits(found: Sequence[Hit], shown: Sequence[str] = ("text",)) -> None:
    """Print what a search found, with the fields asked for: a table, or in a pipe a hit a line, tabs between."""
    screen = console()
    if not screen.is_terminal:
        for hit in found:
            say("\t".join((f"{hit.score:.4f}", _one_line(hit.id), *(_field(hit, name) for name in shown))))
        return
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("score", justify="right", style="cyan")
    out.add_column("id", style="bold", overflow="fold", max_width=40)
    for name in shown:
        out.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)
    for hit in found:
        out.add_row(f"{hit.score:.4f}", Text(hit.id), *(Text(_field(hit, name)) for name in shown))
    screen.print(out)


def vector_index(found: VectorIndex, *, wanted: float) -> None:
    """Print what an index of vectors is and what it was measured to find."""
    built = f"{found.partitions:,} partitions, {found.seconds:.1f} s to build"
    say(f"index      {found.kind} of {found.rows:,} rows in {built}")
    say(f"asked      {found.probes:,} of the partitions; {found.refine} times the rows asked for are compared in full")
    short = "" if found.recall >= wanted else f" (less than the {wanted} asked for: take another --kind)"
    say(f"recall@10  {found.recall:.4f} against exact search, {found.queries} stored vectors{short}")


def _field(hit: Hit, name: str) -> str:
    value = hit.fields.get(name, {"id": hit.id, "text": hit.text}.get(name))
    return (
        ""
        if value is None
        else _one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    )


def description(shown: Description) -> None:
    """Print how a model reads a text: the settings, then the tokens, the pooled ones highlighted and in brackets."""
    limit = "no limit" if shown.max_tokens is None else f"max_tokens {shown.max_tokens}"
    positions = "" if shown.positions is None else f", {shown.positions} positions"
    lines = {
        "template": f"{shown.template} ({shown.side} side)",
        "prompt": repr(shown.prompt) if shown.prompt else "none",
        "pooling": f"{shown.pooling} over {shown.pooled} of {len(shown.tokens)} tokens",
        "length": f"{len(shown.tokens)} tokens ({limit} with one copy of the text{positions})"
        + (", the text is cut" if shown.cut else ""),
        "vector": f"{shown.dimensions} dimensions, {shown.dtype} on {shown.device}",
        "attention": shown.attention,
        "modules": shown.modules,
    }
    for name, value in lines.items():
        say(f"{name:<10} {value}")
    tokens = Text()
    for token in shown.tokens:
        words = token.text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"
        tokens.append(f"[{words}]" if token.pooled else words, style=_POOLED if token.pooled else None)
        tokens.append(" ")
    say()
    console().print(tokens, soft_wrap=True)
    say()
    say("[pooled] tokens stand in brackets; · is a space, ⏎ a new line, � and ∅ are parts of one character.")


def demo(outcome: Demo, model: str) -> None:
    """Print the outcome of the demo: the table, the gains, the search, what Stage I remembers, and how to go on."""
    say(
        f"{outcome.pairs:,} docstrings of the standard library: the first line searches for the rest among all of "
        f"them.\n{model}, zero-shot with at most {outcome.max_tokens} tokens a copy; intervals are 95 % (bootstrap).\n"
    )
    table(
        ("vectors", "nDCG@10", "95 % interval"),
        [(row.name, f"{row.ndcg.mean:.4f}", f"{row.ndcg.low:.4f} to {row.ndcg.high:.4f}") for row in outcome.rows],
    )
    for gain in outcome.gains:
        figures = gain.ndcg
        say(f"{gain.name}: {figures.mean:+.4f} [{figures.low:+.4f}, {figures.high:+.4f}], query by query")
    if outcome.memory is not None:
        _memory(outcome.memory)
    say(f"\nAsked for: {outcome.query}")
    for name, found in outcome.searches.items():
        say(f"  {name}: {', '.join(hit.id for hit in found[:_BRIEF])}")
    say(f"\nThe best row, {outcome.best.name}:\n")
    hits(outcome.hits)
    _say_search(outcome, model)


def _say_search(outcome: Demo, model: str) -> None:
    """Say how to search everything with the best row, where nothing was trained for it."""
    name, *shape = outcome.best.name.split(", ")
    if not shape:
        return
    options, searched = f"--template {name} --pooling {shape[0]}", quote(model)
    say("")
    if len(shape) > 1:
        say(f"Calibrate it: antiphon calibrate {searched} {options} --out calibrated")
        options, searched = "", "calibrated"
    say(f"Search all of it: antiphon search docstrings {quote(outcome.query)} --model {searched} {options}".rstrip())


def _memory(memory: Memory) -> None:
    say("\nWhat a vector tells of the other side of its pair, in nats a token (the loss without it minus with it):")
    table(
        ("", "before Stage I", "after it"),
        [
            (name, f"{before.nats:+.3f}", f"{after.nats:+.3f}")
            for name, before, after in (
                ("of the body, from the summary", memory.before.query_to_document, memory.after.query_to_document),
                ("of the summary, from the body", memory.before.document_to_query, memory.after.document_to_query),
            )
        ],
    )
    say("What is decoded from the vector of a summary alone:")
    for query, words in memory.decoded:
        say(f"  {_one_line(query)}\n    -> {_one_line(words)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
