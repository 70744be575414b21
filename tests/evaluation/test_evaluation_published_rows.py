"""What papers print, beside a run: every printed average follows from its row, and a table says what it is over."""

from __future__ import annotations

import json

import evaluation_data as data
import pytest

import antiphon
from antiphon.cli import main, report
from antiphon.cli.report.published_lines import beside
from antiphon.errors import ConfigError
from antiphon.evaluation import compare, evaluate
from antiphon.evaluation.published_scores import AVERAGE, TASKS, published

NAMES = ("anchor", "echo-zero-shot", "echo", "llm2vec")
ODD = {("Qwen2.5-1.5B-Instruct", "baseline"): 61.58, ("Llama-3.1-8B-Instruct", "baseline"): 64.25}
"""Printed averages that do not follow from their rows, and what does."""


def test_printed_averages_follow_from_their_rows():
    rows = published(NAMES)
    assert len(rows) == 12 + 10 + 9 + 12
    for row in rows:
        if set(TASKS) <= set(row.figures):
            mean = sum(count * row.figures[name] for name, count in TASKS.items()) / sum(TASKS.values())
            wanted = (
                ODD.get((row.model, row.system), row.figures[AVERAGE])
                if row.paper == "anchor"
                else row.figures[AVERAGE]
            )
            assert mean == pytest.approx(wanted, abs=0.02), row
    with pytest.raises(ConfigError, match="no published rows 'ankor'; take some of anchor, echo-zero-shot"):
        published(["ankor"])


def test_a_run_and_the_papers_rows_are_one_table(tiny_base, tmp_path, capsys):
    model = antiphon.build(tiny_base, "classical-write", pooling="mean", max_tokens=96, dtype="float32")
    folder = data.beir(tmp_path / "search")
    evaluate(model, folder, label="mine", out=tmp_path / "scores", cache=False)
    outcome = compare([tmp_path / "scores"], published=["anchor"])
    heads, rows = beside(outcome)
    assert heads[:3] == ("system", "source", "Retrieval")
    mine, first = rows[0], rows[1]
    assert mine[2] == f"{100 * outcome.systems[0].tasks['search'].main:.2f} (1 of 15)"
    assert mine[3] == ""
    assert first == (
        "Llama-3.2-1B-Instruct, baseline", "anchor",
        "50.06", "54.94", "44.38", "82.71", "72.17", "81.27", "29.94", "60.99",
    )  # fmt: skip
    written = report.write_comparison(outcome, tmp_path / "report")
    assert "Beside what is published" in (written / "report.html").read_text()
    assert len(json.loads((written / "comparison.json").read_text())["published"]) == 12
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "scores"), "--published", "echo,llm2vec"])
    said = capsys.readouterr().out
    assert "64.68" in said
    assert "65.01" in said
