"""The local tasks of the table, cut to what a CPU can read, and the texts that calibrations are fitted on.

A corpus is cut to the documents that its drawn queries are judged on and others drawn beside them, so retrieval is
easier than on the whole sets; the training texts of a classification to some of each label.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from antiphon.data.docstrings import evenly, harvest, standard_library
from antiphon.evaluation.selection import Selection, select

SEED = 42
# cheap sets of every kind first, so that a run that is stopped early has something of each
TASKS = (
    "sts/stsb_dev.tsv",
    "classification/trec_questions",
    "beir/xquad_en",
    "pairs/quora_dev.tsv",
    "clustering/stackoverflow.jsonl",
    "classification/banking77",
    "sts/sts12.tsv",
    "train/nq.jsonl",
    "classification/tweet_emotion",
    "sts/sts13.tsv",
    "reranking/trec_qa_dev.jsonl",
    "train/squad.jsonl",
    "clustering/bbc_news.jsonl",
)
LIMIT = 100
"""Pairs, queries or texts of a task at most."""
DOCUMENTS = 80
"""Of a corpus."""
RELEVANT = 60
"""Of those, relevant to a drawn query; queries are drawn until there are so many."""
QUESTIONS = 50
"""Of a set of questions and passages that is read as a retrieval task."""
RERANKED = 14
"""Queries of a reranking task."""
OF_LABEL = 8
"""Training texts of a label: what mteb draws for a classifier."""
LABELS = 12
"""Of a classification task."""
TESTED = 60
"""Texts that are to be classified."""
FITTED = 150


def selected(data: Path, tasks: Iterable[str], cache: Path) -> list[Selection]:
    """Return the tasks, those that are cut from copies under the cache."""
    return [one for task in tasks for one in select([_cut(data, task, cache)], limit=LIMIT, seed=SEED)]


def _cut(data: Path, task: str, cache: Path) -> Path:
    source, kind = data / task, task.split("/")[0]
    cutting = {"beir": _retrieval, "classification": _classification, "reranking": _reranking, "train": _questions}
    if kind not in cutting:
        return source
    place = cache / "sets" / task.removesuffix(".jsonl" if kind == "train" else "")
    if not place.exists():
        cutting[kind](source, place)
    return place


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _retrieval(source: Path, place: Path) -> None:
    judged = [line.split("\t") for line in (source / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    relevant: dict[str, list[str]] = defaultdict(list)
    for query, document, grade in judged:
        if float(grade) > 0:
            relevant[query].append(document)
    draw = random.Random(SEED)
    queries: set[str] = set()
    kept: set[str] = set()
    for query in draw.sample(sorted(relevant), len(relevant)):
        if len(kept.union(relevant[query])) > RELEVANT:
            break
        queries.add(query)
        kept.update(relevant[query])
    corpus = _rows(source / "corpus.jsonl")
    others = [row["_id"] for row in corpus if row["_id"] not in kept]
    kept.update(draw.sample(others, max(0, min(len(others), DOCUMENTS - len(kept)))))
    asked = [row for row in _rows(source / "queries.jsonl") if row["_id"] in queries]
    judged = [row for row in judged if row[0] in queries and row[1] in kept]
    _write_folder(place, [row for row in corpus if row["_id"] in kept], asked, judged)


def _questions(source: Path, place: Path) -> None:
    rows = random.Random(SEED).sample(_rows(source), QUESTIONS)
    passages = {row["positive"]: f"d{number}" for number, row in enumerate(rows)}
    corpus = [{"_id": number, "text": text} for text, number in passages.items()]
    asked = [{"_id": f"q{number}", "text": row["query"]} for number, row in enumerate(rows)]
    _write_folder(place, corpus, asked, [[f"q{n}", passages[row["positive"]], "1"] for n, row in enumerate(rows)])


def _write_folder(
    place: Path, corpus: list[dict[str, Any]], queries: list[dict[str, Any]], judged: list[list[str]]
) -> None:
    _write(place / "corpus.jsonl", corpus)
    _write(place / "queries.jsonl", queries)
    (place / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(row) for row in judged)]
    (place / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _classification(source: Path, place: Path) -> None:
    by_label: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(source / "train.jsonl"):
        by_label[row["label"]].append(row)
    draw = random.Random(SEED)
    labels = draw.sample(sorted(by_label), min(LABELS, len(by_label)))
    _write(place / "train.jsonl", (row for one in labels for row in draw.sample(by_label[one], OF_LABEL)))
    tested = [row for row in _rows(source / "test.jsonl") if row["label"] in labels]
    _write(place / "test.jsonl", draw.sample(tested, min(TESTED, len(tested))))


def _reranking(source: Path, place: Path) -> None:
    _write(place, random.Random(SEED).sample(_rows(source), RERANKED))


def fitting_texts(data: Path, cache: Path) -> dict[str, list[str]]:
    """Return the texts that maps are fitted on: paragraphs of encyclopedia, docstrings of this Python, and for two
    tasks the corpus that is searched, without the documents that the task keeps.

    "halves" are the paragraphs cut in two, one behind the other: what a choice of layer is judged by.
    """
    lines = (data / "text" / "wikitext2.txt").read_text(encoding="utf-8").splitlines()
    paragraphs = evenly([line.strip() for line in lines if 100 <= len(line) <= 500], FITTED)
    docstrings = [one.text for one in harvest(standard_library(), minimum=100) if len(one.text) <= 500]
    return {
        "wikipedia": paragraphs,
        "halves": [half for text in paragraphs for half in _halves(text)],
        "docstrings": evenly(docstrings, FITTED),
        "xquad": _rest(data / "beir" / "xquad_en" / "corpus.jsonl", "text", cache / "sets" / "beir" / "xquad_en"),
        "nq": _rest(data / "train" / "nq.jsonl", "positive", cache / "sets" / "train" / "nq"),
    }


def _rest(source: Path, field: str, place: Path) -> list[str]:
    """Return texts of a corpus that its cut for the table does not hold; none before the cut is made."""
    if not place.exists():
        return []
    kept = {row["text"] for row in _rows(place / "corpus.jsonl")}
    return evenly([text for text in dict.fromkeys(row[field] for row in _rows(source)) if text not in kept], FITTED)


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
