"""Local tasks: which layout a path has.

    folder with corpus, queries, qrels/SPLIT.tsv     retrieval (BEIR)
    folder with train and test: text, label          classification
    sentence1, sentence2, score                      STS
    sentence1, sentence2, label                      pair classification (label 0 or 1)
    text, label                                      clustering
    query, positive[], negative[]                    reranking

A table is known by its columns, whatever kind of file it is in (data/rows.py). A folder of such files and folders
stands for all of them. What becomes of the rows is the business of local_readers.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from antiphon.data.beir import QRELS, BeirFolder
from antiphon.data.byte_streams import PLAIN_JSON, kind_of, stem_of
from antiphon.data.rows import is_table_name
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import is_stored
from antiphon.errors import ConfigError
from antiphon.evaluation.local_readers import LOCAL_READERS, Kind, LocalReading, OwnDocument, kind_of_table, table_at

_RULES = 2
"""Counted up when a file comes to be read differently, so that no score of before is taken for one of now."""


@dataclass(frozen=True)
class LocalData:
    """A local task as read: its columns by split or part, and what is to be said about it."""

    name: str
    kind: Kind
    revision: str
    """A hash of the files' bytes and of how they were read."""
    parts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocalTask:
    """A recognised local task that has not been read yet."""

    name: str
    kind: Kind
    files: tuple[Path, ...]
    """Files, or a folder that holds one table."""

    def read(
        self, *, limit: int | None = None, seed: int = 0, own_document: OwnDocument = "auto", strict: bool = False
    ) -> LocalData:
        """Read and check it; `limit` keeps that many examples at most, drawn with the seed.

        Examples are queries (the corpus is kept whole), pairs, or texts (of train and test alike). What is passed over
        is told in the notes; `strict` refuses it. Raises DataError for a file that cannot be scored honestly.
        """
        if own_document not in get_args(OwnDocument):
            raise ConfigError(f"own_document is {own_document!r}; take one of {', '.join(get_args(OwnDocument))}.")
        if limit is not None and limit < 2:
            raise ConfigError(f"The limit on examples is {limit}; it must be at least 2.")
        how = LocalReading(limit, seed, own_document, Skipped(strict=strict))
        parts = LOCAL_READERS[self.kind](self.files, how)
        notes = (*how.notes, *(f"passed over: {line}" for line in how.skipped.lines))
        return LocalData(self.name, self.kind, self._revision(limit, seed, own_document), parts, notes)

    def _revision(self, limit: int | None, seed: int, own_document: OwnDocument) -> str:
        digest = hashlib.sha256(f"{_RULES} {self.kind} {limit} {seed} {own_document}".encode())
        for path in self.files:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16]


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
    inside = list(_inside(source)) if source.is_dir() else []
    if not inside:
        raise ConfigError(
            f"{source} is no task: a folder with corpus.jsonl, queries.jsonl and qrels/ (retrieval) or train.jsonl and "
            "test.jsonl (classification), or a table with sentence1, sentence2 and score (STS) or label (pairs), text "
            "and label (clustering) or query, positive and negative (reranking) is wanted."
        )
    return inside


def _inside(folder: Path) -> Iterator[LocalTask]:
    for child in sorted(folder.iterdir()):
        # a .json file that nobody named may be anything, a configuration or a report
        layout = None if kind_of(child) == PLAIN_JSON else _layout(child)
        if layout is not None:
            yield layout


def _layout(path: Path) -> LocalTask | None:
    if path.is_dir():
        found = _folder(path)
        if found is not None or not is_stored(path):
            return found
    elif not is_table_name(path):
        return None
    if path.parent.name == QRELS and (beir := BeirFolder.at(path.parent.parent)) is not None:
        return _beir(beir, path)
    kind = kind_of_table(table_at(path))
    return None if kind is None else LocalTask(stem_of(path), kind, (path,))


def _folder(path: Path) -> LocalTask | None:
    beir = BeirFolder.at(path)
    if beir is not None:
        splits = beir.splits()
        chosen = [splits["test"]] if "test" in splits else list(splits.values())
        if len(chosen) != 1:
            which = f"{len(splits)} files and none is test.tsv" if splits else "no .tsv file"
            raise ConfigError(f"{path / QRELS} has {which}; name one of them, such as {path / QRELS / 'dev.tsv'}.")
        return _beir(beir, chosen[0])
    inside = sorted(path.iterdir(), reverse=True)
    named = {stem_of(child): child for child in inside if is_table_name(child) or (child.is_dir() and is_stored(child))}
    if "train" not in named or "test" not in named:
        return None
    kind = kind_of_table(table_at(named["test"]))
    if kind in (None, "Clustering"):
        return LocalTask(path.resolve().name, "Classification", (named["train"], named["test"]))
    return LocalTask(path.resolve().name, kind, (named["test"],))


def _beir(found: BeirFolder, qrels: Path) -> LocalTask:
    name, split = found.folder.resolve().name, stem_of(qrels)
    return LocalTask(name if split == "test" else f"{name}-{split}", "Retrieval", (found.corpus, found.queries, qrels))
