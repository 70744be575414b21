"""The content of local tasks as plain checked columns, a reader a kind.

What is kept, dropped or refused is stated at each reader; what is dropped is counted in the notes, which go into the
result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from antiphon.data.beir import BeirFolder, Document, by_id, judgements
from antiphon.data.byte_streams import refuse
from antiphon.data.cells import identity_of, number_of, text_of, texts_in, value_of
from antiphon.data.pairs.overlap import reading
from antiphon.data.rows import Table, open_table
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import stored_table

Kind = Literal["Retrieval", "Classification", "STS", "PairClassification", "Clustering", "Reranking"]
OwnDocument = Literal["auto", "keep", "leave-out"]
"""What becomes of the document that has a query's id: "leave-out" as BEIR's protocol has it, "keep", or "auto", which
leaves them out where ids are one space: most documents that share an id with a query read as it does."""
COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "STS": ("sentence1", "sentence2", "score"),
    "PairClassification": ("sentence1", "sentence2", "label"),
    "Reranking": ("query", "positive", "negative"),
    "Clustering": ("text", "label"),
}
"""The columns by which the kind of a table is known, the first that fits."""
Columns = dict[str, list[Any]]
Rows = list[dict[str, Any]]
Parts = dict[str, Any]


@dataclass(frozen=True)
class LocalReading:
    """How local data are read: a cap on examples, drawn with the seed, and what is kept; notes gather here."""

    limit: int | None
    seed: int
    own_document: OwnDocument
    skipped: Skipped
    notes: list[str] = field(default_factory=list)

    def keep(self, rows: Rows, what: str) -> Rows:
        """Return at most `limit` rows, drawn with the seed, in their order."""
        if self.limit is None or len(rows) <= self.limit:
            return rows
        self.notes.append(f"{self.limit} of {len(rows)} {what}, drawn with seed {self.seed}")
        kept = sorted(random.Random(self.seed).sample(range(len(rows)), self.limit))
        return [rows[number] for number in kept]

    def leave_out(self, what: str, where: Path, done: str = "left out") -> None:
        """Note what is not scored as it stands; DataError where the reading is strict."""
        if self.skipped.strict:
            refuse(f"{where}: {what}, and strict reading passes over nothing; mend the judgements.")
        self.notes.append(f"{what}; {done}")


def table_at(path: Path) -> Table:
    """Return the table of a file, or of a folder that holds one (of several splits test)."""
    stored = stored_table(path, "test") if path.is_dir() else None
    return open_table(path) if stored is None else stored


def kind_of_table(table: Table) -> Kind | None:
    """Return of which kind of task a table is, by its columns."""
    return next((kind for kind, columns in COLUMNS.items() if set(columns) <= set(table.columns)), None)


def _retrieval(files: tuple[Path, ...], how: LocalReading) -> Parts:
    """Documents without words are kept and embedded as empty texts; queries without a relevant document are dropped.

    A judged document that is not in the corpus counts as never found, as in BEIR's own evaluation.
    """
    corpus_file, queries_file, qrels_file = files
    found = BeirFolder(corpus_file.parent, corpus_file, queries_file)
    corpus, queries = by_id(found.documents(how.skipped)), by_id(found.asked(how.skipped))
    for path, ids in ((corpus_file, corpus), (queries_file, queries)):
        if not ids:
            refuse(f"{path} is empty.")
    relevant = _relevant(qrels_file, corpus, queries, how)
    empty = sum(not document.whole for document in corpus.values())
    if empty:
        how.notes.append(f"{empty} of {len(corpus)} documents are empty; they are kept, as empty texts")
    answered = [
        {"id": one.id, "text": one.text}
        for one in queries.values()
        if any(grade > 0 for grade in relevant.get(one.id, {}).values())
    ]
    if not answered:
        refuse(f"{qrels_file} names no relevant document for any query, so there is nothing to score.")
    if len(answered) < len(queries):
        how.leave_out(f"{len(queries) - len(answered)} of {len(queries)} queries have no relevant document", qrels_file)
    ignored = _own_documents(corpus, queries, how)
    kept = how.keep(answered, "queries")
    return {
        "corpus": [{"id": one.id, "title": one.title, "text": one.text} for one in corpus.values()],
        "queries": kept,
        "relevant": {row["id"]: relevant[row["id"]] for row in kept},
        "ignore_identical_ids": ignored,
    }


def _relevant(
    path: Path, corpus: Mapping[str, Document], queries: Mapping[str, Document], how: LocalReading
) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    missing = 0
    for one in judgements(path, how.skipped):
        if one.query not in queries:
            refuse(f"{one.where}: there is no query with the id {one.query!r:.80}; mend the id or remove the line.")
        missing += one.document not in corpus
        relevant.setdefault(one.query, {})[one.document] = one.grade
    if missing:
        how.leave_out(
            f"judgements of documents that the corpus has not ({missing})", path, "those count as never found"
        )
    return relevant


def _own_documents(corpus: Mapping[str, Document], queries: Mapping[str, Document], how: LocalReading) -> bool:
    """Return whether the document with a query's id is left out of its ranking, and note why."""
    shared = [query for query in queries.values() if query.id in corpus]
    if not shared:
        return False
    same = sum(_same_text(query, corpus[query.id]) for query in shared)
    left_out = how.own_document == "leave-out" or (how.own_document == "auto" and 2 * same > len(shared))
    what = f"{len(shared)} of {len(queries)} queries share their id with a document, {same} of them its text too"
    done = "is left out of the query's ranking, as BEIR's protocol does" if left_out else "is kept in the ranking"
    how.notes.append(f"{what}; that document {done}")
    return left_out


def _same_text(query: Document, document: Document) -> bool:
    return reading(query.text) in (reading(document.text), reading(document.whole))


def _columns_of(path: Path, names: Sequence[str], how: LocalReading) -> list[tuple[str, dict[str, Any]]]:
    """Return (where, values) of the rows of a table, and count the columns that are not used."""
    table = table_at(path)
    unused = [name for name in table.columns if name not in (*names, "id", "_id")]
    if unused:
        what = f"columns that the task does not use: {', '.join(map(repr, unused))}"
        how.skipped.add(what, table.where, "remove them", number=len(unused))
    return [
        (row.where, {name: value_of(row, name) for name in names}) for row in table.rows(names, skipped=how.skipped)
    ]


def _scored(path: Path, name: str, value: Callable[[Any, str, str], Any], how: LocalReading) -> Columns:
    rows = [
        {
            "sentence1": text_of(row["sentence1"], where, "sentence1"),
            "sentence2": text_of(row["sentence2"], where, "sentence2"),
            "y": value(row[name], where, name),
        }
        for where, row in _columns_of(path, ("sentence1", "sentence2", name), how)
    ]
    if len({row["y"] for row in rows}) < 2:
        refuse(f"{path} has {len(rows)} pairs and no two different values, so nothing can be told apart.")
    return _columns(how.keep(rows, "pairs"))


def _sts(files: tuple[Path, ...], how: LocalReading) -> Parts:
    columns = _scored(files[0], "score", number_of, how)
    return {"test": {**columns, "score": columns.pop("y")}}


def _binary(value: Any, where: str, name: str) -> int:
    if isinstance(value, bool) or str(value) not in ("0", "1"):
        refuse(f"{where}: the label is {value!r:.40}; 0 or 1 is wanted.")
    return int(value)


def _pair_classification(files: tuple[Path, ...], how: LocalReading) -> Parts:
    columns = _scored(files[0], "label", _binary, how)
    return {"test": {**columns, "labels": columns.pop("y")}}


def _labelled(path: Path, how: LocalReading) -> Rows:
    rows = [
        {"text": text_of(row["text"], where, "text"), "label": identity_of(row["label"], where, "label")}
        for where, row in _columns_of(path, ("text", "label"), how)
    ]
    if len({row["label"] for row in rows}) < 2:
        refuse(f"{path} has {len(rows)} texts and fewer than two labels, so nothing can be told apart.")
    return rows


def _classification(files: tuple[Path, ...], how: LocalReading) -> Parts:
    """A label that only the test has is refused: no classifier could ever give it."""
    train, test = (_labelled(path, how) for path in files)
    unseen = sorted({row["label"] for row in test} - {row["label"] for row in train})
    if unseen:
        refuse(f"{files[1]} has the label {unseen[0]!r} ({len(unseen)} such labels), which {files[0]} has not.")
    # the classifier sees a few texts of each label, drawn by mteb; a cap on the training texts could lose a label
    return {"train": _columns(train), "test": _columns(how.keep(test, "test texts"))}


def _clustering(files: tuple[Path, ...], how: LocalReading) -> Parts:
    columns = _columns(how.keep(_labelled(files[0], how), "texts"))
    return {"test": {"sentences": columns["text"], "labels": columns["label"]}}


def _reranking(files: tuple[Path, ...], how: LocalReading) -> Parts:
    rows = [
        {
            "query": text_of(row["query"], where, "query"),
            "positive": texts_in(row["positive"], where, "positive"),
            "negative": texts_in(row["negative"], where, "negative"),
        }
        for where, row in _columns_of(files[0], COLUMNS["Reranking"], how)
    ]
    if not rows:
        refuse(f"{files[0]} is empty.")
    return {"test": how.keep(rows, "queries")}


def _columns(rows: Rows) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


LOCAL_READERS: Mapping[Kind, Callable[[tuple[Path, ...], LocalReading], Parts]] = {
    "Retrieval": _retrieval,
    "Classification": _classification,
    "STS": _sts,
    "PairClassification": _pair_classification,
    "Clustering": _clustering,
    "Reranking": _reranking,
}
