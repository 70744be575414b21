"""The texts of an evaluation set, whatever its layout: what no training pair should hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from antiphon.data.pairs.pair_folders import CORPUS, QUERIES, is_beir, read_texts
from antiphon.data.rows import read_rows, refuse
from antiphon.data.sources import DOCSTRINGS, PLAIN, read

_NOT_TEXT = frozenset({"id", "_id", "label", "label_text", "score", "split"})


def texts_of(source: str | Path) -> Iterator[str]:
    """Yield the texts of an evaluation set.

    They are the corpus and the queries of a folder in BEIR layout; the lines of a .txt file; every text in any field
    of a .jsonl, .csv, .tsv or .parquet file, other than ids, labels and scores; or "docstrings", the standard library.

    Raises DataError for what is missing or cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        if not is_beir(path):
            refuse(f"{path} is no folder in BEIR layout ({CORPUS}, {QUERIES}); name a file in it.")
        for name in (QUERIES, CORPUS):
            yield from (text for _, text in read_texts(path / name))
    elif str(source) == DOCSTRINGS or path.suffix.lower() == PLAIN:
        yield from (record.text for record in read(source))
    else:
        for row in read_rows(path, lambda names, where: names):
            for name, value in row.values.items():
                if name not in _NOT_TEXT:
                    yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and item.strip():
            yield item
