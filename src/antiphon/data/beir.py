"""The BEIR layout: a folder with a corpus, queries and judgements (qrels); one reader for all that use one.

    corpus.jsonl    {"_id": ..., "title": ..., "text": ...}
    queries.jsonl   {"_id": ..., "text": ...}
    qrels/SPLIT.tsv query-id, corpus-id, score, by the header's names in any order, by position without a header

Each may be of another kind of table, or packed (see rows.py). An empty document is kept and counted, as BEIR's own
evaluation does; a judgement of a document that the corpus has not is counted. Everything else that cannot be right is
refused, with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from antiphon.data.byte_streams import kind_of, opened, refuse, stem_of
from antiphon.data.cells import grade_of, identity_of, listed, text_of
from antiphon.data.delimited import records
from antiphon.data.rows import Row, Table, is_table_name, open_table
from antiphon.data.skipped import Skipped

QRELS = "qrels"
_IDS = ("_id", "id")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "query-id": ("query-id", "query_id", "qid", "query"),
    "corpus-id": ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid", "pid", "document"),
    "score": ("score", "relevance", "grade", "label"),
}
_SEPARATORS = {".tsv": "\t", ".csv": ","}
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


@dataclass(frozen=True)
class Document:
    """A row of the corpus or of the queries; these have no title."""

    where: str
    id: str
    title: str
    text: str
    rest: Mapping[str, Any] = field(default_factory=dict)
    """Its other columns, where they were asked for."""

    @property
    def whole(self) -> str:
        """The title before the text, as it is embedded."""
        return f"{self.title.strip()} {self.text.strip()}".strip()


@dataclass(frozen=True)
class Judgement:
    """How relevant a document is for a query; above 0 it is."""

    where: str
    query: str
    document: str
    grade: int


@dataclass(frozen=True)
class BeirFolder:
    """A folder in BEIR layout and its parts."""

    folder: Path
    corpus: Path
    queries: Path

    @classmethod
    def at(cls, folder: Path) -> BeirFolder | None:
        """Return the folder where it has the layout, else None."""
        corpus, queries = _part(folder, "corpus"), _part(folder, "queries")
        return None if corpus is None or queries is None else cls(folder, corpus, queries)

    def splits(self) -> dict[str, Path]:
        """Return the files of judgements by the name of their split, in order of name."""
        inside = sorted((self.folder / QRELS).iterdir()) if (self.folder / QRELS).is_dir() else []
        return {stem_of(path): path for path in reversed(inside) if is_table_name(path)}

    def documents(self, skipped: Skipped | None = None, *, rest: Sequence[str] = ()) -> Iterator[Document]:
        """Yield the documents in order, the empty ones too, with what `rest` names besides."""
        return _documents(self.corpus, ("title", "text"), skipped, rest)

    def others(self) -> tuple[str, ...]:
        """Return the columns of the corpus that are neither id nor text; the title is one, for it can stand alone."""
        table = open_table(self.corpus)
        return tuple(name for name in table.columns if name not in (_identity(table), "text"))

    def asked(self, skipped: Skipped | None = None) -> Iterator[Document]:
        """Yield the queries in order; DataError for an empty one."""
        for query in _documents(self.queries, ("text",), skipped):
            text_of(query.text, query.where, "text")
            yield query


def by_id(found: Iterable[Document], wanted: set[str] | None = None) -> dict[str, Document]:
    """Return documents or queries by id, those of `wanted` alone where that is given; DataError for an id twice."""
    kept: dict[str, Document] = {}
    for one in found:
        if wanted is not None and one.id not in wanted:
            continue
        if one.id in kept:
            refuse(f"{one.where} has the id {one.id!r:.80}, as {kept[one.id].where} has; make ids unique.")
        kept[one.id] = one
    return kept


def judgements(path: Path, skipped: Skipped) -> Iterator[Judgement]:
    """Yield the judgements of a file; one that stands there twice is counted, DataError where the grades differ."""
    grades: dict[tuple[str, str], int] = {}
    for row in _judged(path, skipped):
        query, document = (identity_of(row.values.get(name), row.where, name) for name in ("query-id", "corpus-id"))
        grade = grade_of(row.values.get("score"), row.where, "score")
        before = grades.get((query, document))
        if before is None:
            grades[query, document] = grade
            yield Judgement(row.where, query, document, grade)
        elif before == grade:
            skipped.add("judgements that stand there twice", row.where, "remove the line")
        else:
            refuse(
                f"{row.where}: query {query!r:.80} and document {document!r:.80} are judged twice, {before} and "
                f"{grade}; remove one line."
            )


def _judged(path: Path, skipped: Skipped) -> Iterator[Row]:
    """Yield rows with query-id, corpus-id and score."""
    if kind_of(path) not in _SEPARATORS:
        table = open_table(path)
        parts = _parts(table.columns, table.where) if table.columns else {}
        for row in table.rows(list(parts.values()), skipped):
            yield Row(row.number, row.where, {part: row.values.get(name) for part, name in parts.items()})
        return
    with opened(path) as stream:
        found = records(stream, _SEPARATORS[kind_of(path)], skipped)
        where, first = next(found, ("", []))
        if not first:
            return
        if _is_header(first):
            places = {part: first.index(name) for part, name in _parts(first, where).items()}
        else:
            places, found = {part: place for place, part in enumerate(_NAMES)}, chain([(where, first)], found)
            if len(first) != len(_NAMES):
                refuse(
                    f"{where} has {len(first)} columns, and {', '.join(_NAMES)} are wanted; mend it or add a header."
                )
        for number, (place, fields) in enumerate(found, start=1):
            yield Row(number, place, {part: fields[column] for part, column in places.items()})


def _is_header(fields: Sequence[str]) -> bool:
    known = {name for names in _NAMES.values() for name in names}
    return sum(field.strip().lower() in known for field in fields) > 1 or not _NUMBER.fullmatch(fields[-1].strip())


def _parts(columns: Sequence[str], where: str) -> dict[str, str]:
    """Return the column of each of the three parts; DataError where one is not there."""
    plain = {name.strip().lower(): name for name in columns}
    found: dict[str, str] = {}
    for part, names in _NAMES.items():
        name = next((plain[name] for name in names if name in plain), None)
        if name is None:
            refuse(f"{where} is {listed(columns)}, and judgements have {', '.join(_NAMES)}; add {part}.")
        found[part] = name
    return found


def _documents(
    path: Path, fields: tuple[str, ...], skipped: Skipped | None, rest: Sequence[str] = ()
) -> Iterator[Document]:
    table = open_table(path)
    identity = _identity(table)
    for row in table.rows((identity, *fields, *rest), skipped):
        if not any(name in row.values for name in fields):
            refuse(f"{row.where} has no field 'text', only {listed(row.values)}; add it, empty for an empty document.")
        texts = {
            name: text_of("" if row.values.get(name) is None else row.values[name], row.where, name, empty=True)
            for name in fields
        }
        name = identity_of(row.values.get(identity), row.where, identity)
        kept = {other: row.values.get(other) for other in rest}
        yield Document(row.where, name, texts.get("title", ""), texts.get("text", ""), kept)


def _identity(table: Table) -> str:
    found = next((name for name in _IDS if name in table.columns), None)
    if found is None and table.columns:
        refuse(f"{table.where} has no field _id, only {listed(table.columns)}; give every row one.")
    return found or _IDS[0]


def _part(folder: Path, name: str) -> Path | None:
    """Return the file of a part: NAME.jsonl, or the first table of that name."""
    plain = folder / f"{name}.jsonl"
    if plain.exists():
        return plain
    return next(
        (path for path in sorted(folder.glob(f"{name}.*")) if stem_of(path) == name and is_table_name(path)), None
    )
