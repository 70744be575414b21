"""Small task files of every layout, made of the unlike texts: enough to score, far too few to mean anything."""

from __future__ import annotations

import json
from pathlib import Path

from antiphon.model.parity import unlike_texts

TEXTS = [text for text in unlike_texts() if text.strip() and "\t" not in text]


def jsonl(path: Path, rows: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tsv(path: Path, rows: list[tuple[object, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


def beir(folder: Path, *, qrels: list[tuple[object, ...]] | None = None) -> Path:
    """Ten documents, two of a title alone, and five queries with one to three graded answers."""
    documents = [{"_id": f"d{n}", "title": f"title {n}", "text": TEXTS[n] if n % 5 else ""} for n in range(10)]
    queries = [{"_id": f"q{n}", "text": TEXTS[-n - 1][:40]} for n in range(5)]
    judged = [(f"q{n}", f"d{(n * 3 + k) % 10}", 1 + k) for n in range(5) for k in range(1 + n % 3)]
    jsonl(folder / "corpus.jsonl", documents)
    jsonl(folder / "queries.jsonl", queries)
    tsv(folder / "qrels" / "test.tsv", [("query-id", "corpus-id", "score"), *(judged if qrels is None else qrels)])
    return folder


def sts(path: Path) -> Path:
    rows = [(TEXTS[n], TEXTS[-n - 1], f"{(n * 7) % 11 / 2}") for n in range(12)]
    return tsv(path, [("sentence1", "sentence2", "score"), *rows])


def pairs(path: Path) -> Path:
    rows = [(TEXTS[n], TEXTS[(n + n % 3) % 12], int(n % 3 == 0)) for n in range(12)]
    return tsv(path, [("sentence1", "sentence2", "label"), *rows])


def classification(folder: Path, labels: tuple[object, ...] = ("code", "prose")) -> Path:
    rows = [{"text": text, "label": labels[n % len(labels)]} for n, text in enumerate(TEXTS)]
    jsonl(folder / "train.jsonl", rows[:20])
    jsonl(folder / "test.jsonl", rows[20:])
    return folder


def clustering(path: Path) -> Path:
    return jsonl(path, [{"text": text, "label": n % 3} for n, text in enumerate(TEXTS[:24])])


def reranking(path: Path) -> Path:
    rows = [
        {"query": TEXTS[n], "positive": [TEXTS[n + 1]], "negative": [TEXTS[n + 5], TEXTS[n + 6], TEXTS[n + 1][::-1]]}
        for n in range(6)
    ]
    return jsonl(path, rows)


def everything(folder: Path) -> dict[str, Path]:
    """One of each, by its name."""
    return {
        "search": beir(folder / "search"),
        "alike": sts(folder / "alike.tsv"),
        "same": pairs(folder / "same.tsv"),
        "kinds": classification(folder / "kinds"),
        "groups": clustering(folder / "groups.jsonl"),
        "answers": reranking(folder / "answers.jsonl"),
    }
