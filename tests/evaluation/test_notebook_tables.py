"""What `print` and a notebook show of scores, a comparison and a plan: lines, and escaped tables of the same cells."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

from antiphon.data.mixtures import SetPlan
from antiphon.data.tabular import ResultTable
from antiphon.evaluation import Scores, TaskScore, compare
from antiphon.evaluation.statistics import Sample
from antiphon.model.flops import DecoderShape
from antiphon.training.plan import Plan, StagePlan

NAME = "<script>alert('1') & \"2\"</script>"
ALLOWED = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}


class Tables(HTMLParser):
    """Reads tables; whatever is open has to be closed in order, and no other element may be there."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.captions, self.rows, self._open = [], [], []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED
        assert [name for name, _ in attrs] in ([], ["style"])
        assert not any("url" in value for _, value in attrs)
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1] == "caption":
            self.captions.append(data)
        else:
            self.rows[-1][-1] += data


def run(label, shift=0.0):
    values = np.linspace(0, 0.5, 20) + shift + np.random.default_rng(0).normal(0, 0.01, 20) * bool(shift)
    sample = Sample("mean", tuple(map(str, range(20))), values)
    tasks = [
        TaskScore(NAME, "STS", "spearman", sample.score(), revision="r", sample=sample),
        TaskScore("plain", "Retrieval", "ndcg", 0.5, revision="r"),
        TaskScore("memory", "Probe", "", 0.0, {"recall": 0.25}),
    ]
    return Scores("a model", label, f"revision of {label}", "", {task.name: task for task in tasks})


def test_every_string_is_escaped_and_reads_back():
    read = Tables(ResultTable(NAME, ("a", NAME), [("b", "<td>"), (NAME, "&amp;")]).html())
    assert read.captions == [NAME]
    assert read.rows == [["a", NAME], ["b", "<td>"], [NAME, "&amp;"]]


def test_scores_show_tasks_means_and_probes():
    scores = run(NAME)
    read = Tables(scores._repr_html_())
    assert read.captions[0].startswith(NAME)
    tasks = {row[0]: row[1:] for row in read.rows}
    interval = scores[NAME].interval()
    assert tasks[NAME] == [
        "STS",
        "spearman",
        f"{100 * scores[NAME].main:.2f}",
        f"{100 * interval.low:.2f} to {100 * interval.high:.2f}",
    ]
    assert tasks["plain"] == ["Retrieval", "ndcg", "50.00", ""]
    assert tasks["mean of all tasks"][2] == f"{100 * scores.average:.2f}"
    assert tasks["memory"] == ["Probe", "recall", "0.25", ""]
    assert Tables(Scores("m", "empty", "r", "", {})._repr_html_()).rows == [
        ["task", "category", "metric", "score", "interval"]
    ]


def test_a_comparison_shows_systems_and_tasks():
    outcome = compare([run("first"), run(NAME, 0.1)])
    read = Tables(outcome._repr_html_())
    assert len(read.captions) == 2
    systems = {row[0]: row[1:] for row in read.rows[1:3]}
    other = outcome.systems[1]
    assert systems["first"][1:] == ["", "", ""]
    assert systems[NAME][1:] == [
        f"{100 * other.difference.mean:+.2f} ({100 * other.difference.low:+.2f} to {100 * other.difference.high:+.2f})",
        "1",
        "0",
    ]
    heads, *tasks = read.rows[3:]
    assert heads == ["task", "first", NAME, "difference"]
    assert [row[0] for row in tasks] == ["plain", NAME]
    assert tasks[0] == ["plain", "50.00", "50.00", ""]
    assert all(len(row) == 4 for row in tasks)


def test_a_plan_shows_stages_and_sets():
    one = SetPlan(NAME, 20, 10, 5, 5, None, "f")
    stage = StagePlan(NAME, "contrastive", 100, 32, 2, 64.0, False, (one,), 1.5e12, 3 * 2**30, 0.25)
    shape = DecoderShape(2, 32, 64, 4, 2, 8, 100, True, 1000, 1000)
    read = Tables(Plan(NAME, NAME, shape, "H100", 1, 0.4, (stage,))._repr_html_())
    assert read.captions[0].startswith(f"{NAME}: {NAME}")
    assert read.rows[1] == [NAME, "contrastive", "100", "32", "64 at most", "1.50e+12", "3.0", "0.25"]
    assert read.rows[3] == [NAME, NAME, "10", "20", "5"]


def test_what_is_printed_are_aligned_lines_with_the_cells_of_the_notebook():
    outcome = compare([run("first"), run(NAME, 0.1)])
    for shown in (run("first"), outcome, Scores("m", "empty", "r", "", {})):
        lines = [line for line in str(shown).splitlines() if line]
        read = Tables(shown._repr_html_())
        assert repr(shown) == str(shown)
        assert len(lines) == len(read.captions) + len(read.rows)
        assert [re.sub(r"\s+", " ", line) for line in lines if line not in read.captions] == [
            re.sub(r"\s+", " ", " ".join(filter(None, row))) for row in read.rows
        ]
    first, second, *_ = str(outcome).splitlines()[2:]
    assert first.index("first") == second.index(NAME) == 0
