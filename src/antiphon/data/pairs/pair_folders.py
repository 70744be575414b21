"""Folders of pairs: echo-data (a JSONL file a set) and the BEIR layout (corpus, queries, judgements)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from antiphon.data.pairs.columns import Columns, Pair, pairs_of
from antiphon.data.rows import Row, read_rows, refuse

ECHO_DATA = (
    "allnli",
    "dureader",
    "eli5_question_answer",
    "fever",
    "hotpot_qa",
    "miracl",
    "mrtydi",
    "msmarco_passage",
    "msmarco_document",
    "nq",
    "quora_duplicates",
    "squad",
    "t2ranking",
    "trivia_qa",
)
"""The fourteen sets of the public replication of E5's training data (Echo, section 4.4)."""
_HALF = re.compile(r"_split[12]$")
CORPUS, QUERIES, JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels"

logger = logging.getLogger(__name__)


def is_beir(folder: Path) -> bool:
    """Return whether a folder has the BEIR layout."""
    return (folder / CORPUS).exists() and (folder / QUERIES).exists()


def echo_data(folder: str | Path) -> dict[str, Path]:
    """Return the JSONL files of an echo-data folder by the name of their set, in order of name.

    The halves that the original code reads (allnli_split1 ...) are left out where the whole set is there too. Which of
    the fourteen sets are not there is told in the log. Raises DataError for a folder without any JSONL file.
    """
    root = Path(folder)
    files = {path.stem: path for path in sorted(root.glob("*.jsonl"))}
    if not files:
        refuse(f"{root} holds no .jsonl file; name a folder with one a data set, or one in BEIR layout.")
    whole = {stem: path for stem, path in files.items() if _HALF.sub("", stem) not in files or not _HALF.search(stem)}
    there = {_HALF.sub("", stem) for stem in whole}
    missing = [name for name in ECHO_DATA if name not in there]
    if missing and len(missing) < len(ECHO_DATA):
        logger.warning("%s lacks %d of the sets of echo-data: %s.", root, len(missing), ", ".join(missing))
    return whole


def read_echo_data(folder: Path, columns: Mapping[str, str] | None) -> Iterator[Pair]:
    """Yield the pairs of all sets of a folder, one set after the other."""
    for path in echo_data(folder).values():
        yield from read_table(path, columns)


def read_table(path: Path, columns: Mapping[str, str] | None) -> Iterator[Pair]:
    """Yield the pairs of one file."""
    found: Columns | None = None

    def choose(names: Sequence[str], where: str) -> Sequence[str]:
        nonlocal found
        found = Columns.of(names, where, columns)
        return found.names

    for row in read_rows(path, choose):
        assert found is not None  # chosen before the first row
        yield from pairs_of(row, found)


def read_beir(folder: Path, split: str = "train") -> Iterator[Pair]:
    """Yield the pairs of a BEIR folder's judgements: a pair for each document judged above 0, title before text.

    Documents judged 0 or below are the negatives of their query. Raises DataError, with file and line, for a judgement
    of a query or document that is not there, and where the split is not.
    """
    file = folder / JUDGEMENTS / f"{split}.tsv"
    if not file.exists():
        there = ", ".join(sorted(path.name for path in (folder / JUDGEMENTS).glob("*.tsv"))) or "no judgements at all"
        refuse(f"{folder} has no {JUDGEMENTS}/{split}.tsv to train on, only {there}; name another folder.")
    judged = list(_judgements(file))
    queries = _by_id(folder / QUERIES, {query for _, query, _, _ in judged})
    documents = _by_id(folder / CORPUS, {document for _, _, document, _ in judged})
    for where, query, document, _ in judged:
        if query not in queries:
            refuse(f"{where} judges query {query!r}, which {folder / QUERIES} has not; remove the line.")
        if document not in documents:
            refuse(f"{where} judges document {document!r}, which {folder / CORPUS} has not; remove the line.")
    negatives: dict[str, list[str]] = {}
    for _, query, document, grade in judged:
        if grade <= 0:
            negatives.setdefault(query, []).append(documents[document])
    for _, query, document, grade in judged:
        if grade > 0:
            yield Pair(queries[query], documents[document], tuple(negatives.get(query, ())))


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and text of a corpus or queries file, the title before the text."""
    for row in read_rows(path, lambda names, where: names):
        title, text = (_string(row, name) for name in ("title", "text"))
        if not (title or text):
            refuse(f"{row.where} has neither title nor text; remove the row and its judgements.")
        yield _identity(row), f"{title} {text}".strip()


def _by_id(path: Path, wanted: set[str]) -> dict[str, str]:
    return {identity: text for identity, text in read_texts(path) if identity in wanted}


def _judgements(file: Path) -> Iterator[tuple[str, str, str, float]]:
    names = ("query-id", "corpus-id", "score")

    def choose(found: Sequence[str], where: str) -> Sequence[str]:
        if any(name not in found for name in names):
            refuse(f"{where} is {', '.join(map(repr, found))}; a file of judgements begins with {', '.join(names)}.")
        return names

    for row in read_rows(file, choose):
        query, document, grade = (row.values[name] for name in names)
        try:
            yield row.where, query, document, float(grade)
        except ValueError:
            refuse(f"{row.where}: the score is {grade!r:.40}, which is no number; mend the line.")


def _identity(row: Row) -> str:
    identity: Any = row.values.get("_id", row.values.get("id"))
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        refuse(f"{row.where} has no _id that is a string or a whole number (it is {identity!r:.40}); add it.")
    return str(identity)


def _string(row: Row, name: str) -> str:
    value = row.values.get(name) or ""
    if not isinstance(value, str):
        refuse(f"{row.where}: {name!r} is {value!r:.80}, which is no string; make it one.")
    return value.strip()
