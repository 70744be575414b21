"""The texts of an evaluation set, whatever its layout: what no training pair should hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from antiphon.data.beir import BeirFolder
from antiphon.data.byte_streams import PLAIN_TEXT, kind_of, refuse
from antiphon.data.many_files import is_pattern, named_by
from antiphon.data.rows import open_table
from antiphon.data.skipped import Skipped
from antiphon.data.sources import DOCSTRINGS, read
from antiphon.data.stored_tables import stored_table

_NOT_TEXT = frozenset({"id", "_id", "label", "label_text", "score", "split", "docid", "query_id"})


def texts_of(source: str | Path, *, skipped: Skipped | None = None) -> Iterator[str]:
    r"""Yield the texts of an evaluation set.

    They are the corpus and the queries of a folder in BEIR layout; the lines of a .txt file; every text in any field
    of a table, or of many by a pattern (pages/*.jsonl), other than ids, labels and scores (see data/rows.py; of a saved
    data set with several splits those of test); or "docstrings", the standard library. Empty documents are counted in
    `skipped` and told in the log.

    Raises DataError for what is missing or cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from antiphon.pairs import texts_of
        >>> _ = Path("texts.txt").write_text("sort a list\nopen a file\n", encoding="utf-8")
        >>> list(texts_of("texts.txt"))
        ['sort a list', 'open a file']
    """
    path, passed_over = Path(source), skipped or Skipped()
    beir = BeirFolder.at(path) if path.is_dir() else None
    if beir is not None:
        yield from (query.text for query in beir.asked(passed_over))
        for document in beir.documents(passed_over):
            if document.whole:
                yield document.whole
            else:
                passed_over.add("empty documents", document.where, "remove the row and its judgements")
    elif str(source) == DOCSTRINGS or kind_of(path) == PLAIN_TEXT:
        yield from (record.text for record in read(source))
    else:
        many = not path.exists() and is_pattern(str(source))
        table = named_by(str(source)) if many else stored_table(path, "test") if path.is_dir() else open_table(path)
        if table is None:
            refuse(f"{path} is no folder in BEIR layout (corpus.jsonl, queries.jsonl); name a file in it.")
        for row in table.rows(skipped=passed_over):
            for name, value in row.values.items():
                if name not in _NOT_TEXT:
                    yield from _strings(value)
    passed_over.tell(str(source))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):  # a passage, or several in columns
        yield from (text for name, inner in value.items() if name not in _NOT_TEXT for text in _strings(inner))
        return
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield from [item] if item.strip() else []
        elif isinstance(item, list | Mapping):
            yield from _strings(item)
