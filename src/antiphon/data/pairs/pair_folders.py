"""Folders of pairs: echo-data (a JSONL file a set) and the BEIR layout (corpus, queries, judgements)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from antiphon.data.beir import QRELS, BeirFolder, by_id, judgements
from antiphon.data.byte_streams import kind_of, refuse, stem_of
from antiphon.data.pairs.columns import Columns, Pair, pairs_of, tell_unused
from antiphon.data.rows import Table, open_table
from antiphon.data.skipped import Skipped

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

logger = logging.getLogger(__name__)


def echo_data(folder: str | Path) -> dict[str, Path]:
    """Return the JSONL files of an echo-data folder by the name of their set, in order of name.

    The halves that the original code reads (allnli_split1 ...) are left out where the whole set is there too. Which of
    the fourteen sets are not there is told in the log. Raises DataError for a folder without any JSONL file.
    """
    root = Path(folder)
    files = {stem_of(path): path for path in sorted(root.iterdir()) if kind_of(path) == ".jsonl"}
    if not files:
        refuse(f"{root} holds no .jsonl file; name a folder with one a data set, or one in BEIR layout.")
    whole = {stem: path for stem, path in files.items() if _HALF.sub("", stem) not in files or not _HALF.search(stem)}
    there = {_HALF.sub("", stem) for stem in whole}
    missing = [name for name in ECHO_DATA if name not in there]
    if missing and len(missing) < len(ECHO_DATA):
        logger.warning("%s lacks %d of the sets of echo-data: %s.", root, len(missing), ", ".join(missing))
    return whole


def read_echo_data(folder: Path, columns: Mapping[str, str] | None, skipped: Skipped) -> Iterator[Pair]:
    """Yield the pairs of all sets of a folder, one set after the other."""
    for path in echo_data(folder).values():
        yield from read_table(open_table(path), columns, skipped)


def read_table(table: Table, mapped: Mapping[str, str] | None, skipped: Skipped) -> Iterator[Pair]:
    """Yield the pairs of one table."""
    if not table.columns:
        return
    columns = Columns.of(table, mapped)
    tell_unused(table, columns, skipped)
    for row in table.rows(columns.names, skipped):
        yield from pairs_of(row, columns, skipped)


def read_beir(found: BeirFolder, skipped: Skipped, split: str = "train") -> Iterator[Pair]:
    """Yield the pairs of a BEIR folder's judgements: a pair for each document judged above 0, title before text.

    Documents judged 0 or below are the negatives of their query. Judgements of documents that are empty or not in the
    corpus make no pair and are counted. Raises DataError, with file and line, for a judgement of a query that is not
    there, and where the split is not.
    """
    splits = found.splits()
    if split not in splits:
        there = ", ".join(path.name for path in splits.values()) or "no judgements at all"
        refuse(f"{found.folder} has no {QRELS}/{split}.tsv to train on, only {there}; name another folder.")
    judged = list(judgements(splits[split], skipped))
    queries = by_id(found.asked(skipped), {one.query for one in judged})
    documents = by_id(found.documents(skipped), {one.document for one in judged})
    negatives: dict[str, list[str]] = {}
    positives: list[tuple[str, str]] = []
    for one in judged:
        if one.query not in queries:
            refuse(f"{one.where}: there is no query {one.query!r:.80} in {found.queries}; remove the line.")
        if one.document not in documents:
            skipped.add("judgements of documents that the corpus has not", one.where, "remove the line")
        elif not (text := documents[one.document].whole):
            skipped.add("judgements of empty documents", one.where, "remove the line")
        elif one.grade > 0:
            positives.append((one.query, text))
        else:
            negatives.setdefault(one.query, []).append(text)
    for query, text in positives:
        yield Pair(queries[query].text, text, tuple(negatives.get(query, ())))
