"""The forms `onnx` and `onnx-int8`: a graph and a tokenizer.json, a folder a prompt; what 8 bits cost in retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from antiphon.data.docstrings import evenly, of_standard_library, pairs
from antiphon.evaluation.statistics import Interval, bootstrap, ndcg
from antiphon.exporting import onnx_graph as graph
from antiphon.exporting.readings import freeze, readings
from antiphon.exporting.stock_files import cut_length, link, write_text_tokenizer
from antiphon.exporting.verified import ONNX, Call, FormSettings, ask
from antiphon.model.unit_vectors import unit
from antiphon.model.variants import in_dtype

INT8_LIMIT = 0.2
"""The largest error against spread of 8-bit weights: a fifth of the distance between unlike texts."""
PAIRS = 200


@dataclass(frozen=True)
class QualityCost:
    """What 8 bits cost: nDCG@10 of first lines of docstrings searching for the rest of theirs."""

    before: Interval
    after: Interval
    difference: Interval
    pairs: int

    def __str__(self) -> str:
        change = f"float32 {self.before}, int8 {self.after}, change {self.difference}"
        return f"nDCG@10 over {self.pairs} docstrings: {change}"


def write(model: SentenceTransformer, folder: Path, settings: FormSettings) -> dict[str, Call]:
    """Write graph and tokenizer of every reading; the graph is one file, linked."""
    del settings
    graph.check(model)
    calls: dict[str, Call] = {}
    for reading in readings(model):
        inside = folder / reading.folder
        inside.mkdir(parents=True, exist_ok=True)
        tokenizer = freeze(model, reading, mark_span=graph.marks_span(model))
        write_text_tokenizer(tokenizer, inside / "tokenizer.json", cut_at=cut_length(model, tokenizer))
        written = next((call.folder for call in calls.values()), None)
        if written is None:
            with in_dtype(model, torch.float32):
                graph.write_graph(model, inside / graph.GRAPH)
        else:
            for file in written.glob(f"{graph.GRAPH}*"):
                link(file, inside / file.name)
        calls[reading.name] = Call(inside, file=graph.GRAPH)
    return calls


def write_small(model: SentenceTransformer, folder: Path, settings: FormSettings) -> dict[str, Call]:
    """Write the same with an 8-bit graph beside the full one, which `finish` removes."""
    calls = write(model, folder, settings)
    first = next(iter(calls.values())).folder
    graph.quantise(first / graph.GRAPH, first / graph.SMALL_GRAPH)
    for call in calls.values():
        if call.folder != first:
            link(first / graph.SMALL_GRAPH, call.folder / graph.SMALL_GRAPH)
    return {name: replace(call, file=graph.SMALL_GRAPH) for name, call in calls.items()}


def finish(calls: Mapping[str, Call]) -> QualityCost:
    """Measure what 8 bits cost, and remove the full graph."""
    chosen = evenly(list(pairs(of_standard_library())), PAIRS)
    names = [pair.name for pair in chosen]
    query = calls["query"]
    document = next((call for name, call in calls.items() if name != "query"), query)
    files = (graph.GRAPH, graph.SMALL_GRAPH)
    queries = ask(ONNX, {file: replace(query, file=file) for file in files}, [pair.summary for pair in chosen])
    documents = ask(ONNX, {file: replace(document, file=file) for file in files}, [pair.body for pair in chosen])
    for call in calls.values():
        for full in call.folder.glob(f"{graph.GRAPH}*"):
            full.unlink()
    before, after = (np.asarray(ndcg(unit(queries[file], names) @ unit(documents[file], names).T)) for file in files)
    return QualityCost(bootstrap(before), bootstrap(after), bootstrap(after - before), len(chosen))
