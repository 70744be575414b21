"""Local tasks: which layout a path has, and its content as plain checked columns.

    folder with corpus.jsonl, queries.jsonl, qrels/*.tsv     retrieval (BEIR)
    folder with train.jsonl, test.jsonl: text, label         classification
    .tsv with the header sentence1 sentence2 score           STS
    .tsv with the header sentence1 sentence2 label           pair classification (label 0 or 1)
    .jsonl: text, label                                      clustering
    .jsonl: query, positive[], negative[]                    reranking

A folder of such files and folders stands for all of them. What is kept, dropped or refused is stated at each reader;
what is dropped is counted in the notes, which go into the result.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from antiphon.errors import ConfigError
from antiphon.evaluation.files_read import (
    grade_of,
    id_of,
    label_of,
    lines,
    number_of,
    objects,
    refuse,
    separated,
    text_of,
    texts_of,
)

Kind = Literal["Retrieval", "Classification", "STS", "PairClassification", "Clustering", "Reranking"]
HEADERS: Mapping[tuple[str, ...], Kind] = {
    ("sentence1", "sentence2", "score"): "STS",
    ("sentence1", "sentence2", "label"): "PairClassification",
}
Columns = dict[str, list[Any]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class LocalData:
    """A local task as read: its columns by split or part, and what is to be said about it."""

    name: str
    kind: Kind
    revision: str
    """A hash of the files' bytes and of the cap."""
    parts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocalTask:
    """A recognised local task that has not been read yet."""

    name: str
    kind: Kind
    files: tuple[Path, ...]

    def read(self, *, limit: int | None = None, seed: int = 0) -> LocalData:
        """Read and check it; `limit` keeps that many examples at most, drawn with the seed.

        Examples are queries (the corpus is kept whole), pairs, or texts (of train and test alike). Raises DataError for
        a file that cannot be scored honestly.
        """
        if limit is not None and limit < 2:
            raise ConfigError(f"The limit on examples is {limit}; it must be at least 2.")
        digest = hashlib.sha256(f"{self.kind} {limit} {seed}".encode())
        for path in self.files:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        parts, notes = _READERS[self.kind](self.files, _Cap(limit, seed))
        return LocalData(self.name, self.kind, digest.hexdigest()[:16], parts, tuple(notes))


@dataclass(frozen=True)
class _Cap:
    limit: int | None
    seed: int

    def keep(self, rows: Rows, what: str, notes: list[str]) -> Rows:
        """Return at most `limit` rows, drawn with the seed, in their order."""
        if self.limit is None or len(rows) <= self.limit:
            return rows
        notes.append(f"{self.limit} of {len(rows)} {what}, drawn with seed {self.seed}")
        kept = sorted(random.Random(self.seed).sample(range(len(rows)), self.limit))
        return [rows[number] for number in kept]


def find(path: str | Path) -> list[LocalTask]:
    """Return the local tasks at a path: one, or all that a folder holds.

    Raises ConfigError where nothing is there, or nothing that is a task.
    """
    source = Path(path)
    if not source.exists():
        raise ConfigError(f"There is no file or folder {source}; name an existing one.")
    found = _layout(source)
    if found is not None:
        return [found]
    inside = [layout for child in sorted(source.iterdir()) if (layout := _layout(child))] if source.is_dir() else []
    if not inside:
        raise ConfigError(
            f"{source} is no task: a folder with corpus.jsonl, queries.jsonl and qrels/ (retrieval) or train.jsonl and "
            "test.jsonl (classification), a .tsv with the header sentence1 sentence2 score (STS) or label (pairs), or "
            "a .jsonl with text and label (clustering) or query, positive and negative (reranking) is wanted."
        )
    return inside


def _layout(path: Path) -> LocalTask | None:
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".tsv":
        if path.parent.name == "qrels":
            return _beir(path.parent.parent, path)
        header = next((line for _, line in islice(lines(path), 1)), "")
        kind = HEADERS.get(tuple(header.split("\t")))
        return None if kind is None else LocalTask(path.stem, kind, (path,))
    if path.suffix == ".jsonl":
        first = next((row for _, row in islice(objects(path, ()), 1)), {})
        if {"query", "positive", "negative"} <= set(first):
            return LocalTask(path.stem, "Reranking", (path,))
        if {"text", "label"} <= set(first):
            return LocalTask(path.stem, "Clustering", (path,))
    return None


def _folder(path: Path) -> LocalTask | None:
    name = path.resolve().name
    if (path / "corpus.jsonl").exists() and (path / "queries.jsonl").exists():
        qrels = sorted((path / "qrels").glob("*.tsv"))
        chosen = [file for file in qrels if file.stem == "test"] or qrels
        if len(chosen) != 1:
            which = f"{len(qrels)} files and none is test.tsv" if qrels else "no .tsv file"
            raise ConfigError(f"{path / 'qrels'} has {which}; name one of them, such as {path / 'qrels' / 'dev.tsv'}.")
        return _beir(path, chosen[0])
    if (path / "train.jsonl").exists() and (path / "test.jsonl").exists():
        return LocalTask(name, "Classification", (path / "train.jsonl", path / "test.jsonl"))
    return None


def _beir(folder: Path, qrels: Path) -> LocalTask:
    name = folder.resolve().name
    return LocalTask(
        name if qrels.stem == "test" else f"{name}-{qrels.stem}",
        "Retrieval",
        (folder / "corpus.jsonl", folder / "queries.jsonl", qrels),
    )


def _retrieval(files: tuple[Path, ...], cap: _Cap) -> tuple[dict[str, Any], list[str]]:
    """Documents without words are kept and embedded as empty texts; queries without a relevant document are dropped."""
    corpus_file, queries_file, qrels_file = files
    notes: list[str] = []
    corpus = [
        {
            "id": id_of(row["_id"], where),
            "title": text_of(row.get("title") or "", where, "title", empty=True),
            "text": text_of(row["text"], where, "text", empty=True),
        }
        for where, row in objects(corpus_file, ("_id", "text"))
    ]
    queries = [
        {"id": id_of(row["_id"], where), "text": text_of(row["text"], where, "query")}
        for where, row in objects(queries_file, ("_id", "text"))
    ]
    documents, asked = _distinct(corpus, corpus_file), _distinct(queries, queries_file)
    relevant = _qrels(qrels_file, documents, asked)
    empty = sum(not (row["title"] + row["text"]).strip() for row in corpus)
    if empty:
        notes.append(f"{empty} of {len(corpus)} documents are empty; they are kept, as empty texts")
    answered = [row for row in queries if any(grade > 0 for grade in relevant.get(row["id"], {}).values())]
    if len(answered) < len(queries):
        notes.append(f"{len(queries) - len(answered)} of {len(queries)} queries have no relevant document; left out")
    if not answered:
        refuse(f"{qrels_file} names no relevant document for any query, so there is nothing to score.")
    kept = cap.keep(answered, "queries", notes)
    return {"corpus": corpus, "queries": kept, "relevant": {row["id"]: relevant[row["id"]] for row in kept}}, notes


def _distinct(rows: Rows, path: Path) -> set[str]:
    counts = Counter(row["id"] for row in rows)
    twice = [identity for identity, count in counts.items() if count > 1]
    if twice:
        refuse(f"{path} has the id {twice[0]!r} {counts[twice[0]]} times ({len(twice)} such ids); make ids unique.")
    if not rows:
        refuse(f"{path} is empty.")
    return set(counts)


def _qrels(path: Path, documents: set[str], queries: set[str]) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    for number, (where, (query, document, grade)) in enumerate(separated(path, 3)):
        if number == 0 and not grade.lstrip("-").isdigit():
            continue  # the header
        if query not in queries:
            refuse(f"{where}: there is no query with the id {query!r:.80}; mend the id or remove the line.")
        if document not in documents:
            refuse(f"{where}: there is no document with the id {document!r:.80}; mend the id or remove the line.")
        of_query = relevant.setdefault(query, {})
        if document in of_query:
            refuse(f"{where}: query {query!r:.80} and document {document!r:.80} are judged twice; remove one line.")
        of_query[document] = grade_of(grade, where)
    return relevant


def _pairs(path: Path, value: Callable[[str, str], Any], cap: _Cap) -> tuple[Columns, list[str]]:
    notes: list[str] = []
    rows = [
        {"sentence1": text_of(a, where, "sentence"), "sentence2": text_of(b, where, "sentence"), "y": value(c, where)}
        for where, (a, b, c) in islice(separated(path, 3), 1, None)
    ]
    if len({row["y"] for row in rows}) < 2:
        refuse(f"{path} has {len(rows)} pairs and no two different values, so nothing can be told apart.")
    return _columns(cap.keep(rows, "pairs", notes)), notes


def _sts(files: tuple[Path, ...], cap: _Cap) -> tuple[dict[str, Any], list[str]]:
    columns, notes = _pairs(files[0], number_of, cap)
    return {"test": {**columns, "score": columns.pop("y")}}, notes


def _binary(value: str, where: str) -> int:
    if value not in ("0", "1"):
        refuse(f"{where}: the label is {value!r:.40}; 0 or 1 is wanted.")
    return int(value)


def _pair_classification(files: tuple[Path, ...], cap: _Cap) -> tuple[dict[str, Any], list[str]]:
    columns, notes = _pairs(files[0], _binary, cap)
    return {"test": {**columns, "labels": columns.pop("y")}}, notes


def _labelled(path: Path) -> Rows:
    rows = [
        {"text": text_of(row["text"], where, "text"), "label": label_of(row["label"], where)}
        for where, row in objects(path, ("text", "label"))
    ]
    if len({row["label"] for row in rows}) < 2:
        refuse(f"{path} has {len(rows)} texts and fewer than two labels, so nothing can be told apart.")
    return rows


def _classification(files: tuple[Path, ...], cap: _Cap) -> tuple[dict[str, Any], list[str]]:
    """A label that only the test has is refused: no classifier could ever give it."""
    train, test = map(_labelled, files)
    unseen = sorted({row["label"] for row in test} - {row["label"] for row in train})
    if unseen:
        refuse(f"{files[1]} has the label {unseen[0]!r} ({len(unseen)} such labels), which {files[0]} has not.")
    notes: list[str] = []
    # the classifier sees a few texts of each label, drawn by mteb; a cap on the training texts could lose a label
    return {"train": _columns(train), "test": _columns(cap.keep(test, "test texts", notes))}, notes


def _clustering(files: tuple[Path, ...], cap: _Cap) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    columns = _columns(cap.keep(_labelled(files[0]), "texts", notes))
    return {"test": {"sentences": columns["text"], "labels": columns["label"]}}, notes


def _reranking(files: tuple[Path, ...], cap: _Cap) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    rows = [
        {
            "query": text_of(row["query"], where, "query"),
            "positive": texts_of(row["positive"], where, "positive"),
            "negative": texts_of(row["negative"], where, "negative"),
        }
        for where, row in objects(files[0], ("query", "positive", "negative"))
    ]
    if not rows:
        refuse(f"{files[0]} is empty.")
    return {"test": cap.keep(rows, "queries", notes)}, notes


def _columns(rows: Rows) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


_Reader = Callable[[tuple[Path, ...], _Cap], tuple[dict[str, Any], list[str]]]
_READERS: Mapping[Kind, _Reader] = {
    "Retrieval": _retrieval,
    "Classification": _classification,
    "STS": _sts,
    "PairClassification": _pair_classification,
    "Clustering": _clustering,
    "Reranking": _reranking,
}
