"""Comparison: paired against unpaired, seeds, what cannot be compared; and the report, opened in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import evaluation_data as data
import numpy as np
import pytest

import antiphon
from antiphon.cli import main, report
from antiphon.cli.report.charts import Chart, Mark, Series, charts, logarithmic_ticks, ticks
from antiphon.cli.report.page import page
from antiphon.cli.report.svg import NARROW, WIDE, draw, tick_words
from antiphon.errors import ConfigError, DataError
from antiphon.evaluation import Scores, TaskScore, compare, evaluate
from antiphon.evaluation.scores import TaskCost
from antiphon.evaluation.statistics import Sample, paired

CHROMIUM = Path("/usr/bin/chromium")


def task(name, values, category="STS", cost=None):
    values = np.asarray(values, dtype=float)
    sample = Sample("mean", tuple(map(str, range(len(values)))), values)
    return TaskScore(name, category, "accuracy", sample.score(), revision="r1", sample=sample, cost=cost)


def run(label, tasks, revision="abc", **settings):
    return Scores("some/model", label, f"{label} {revision}", "", {one.name: one for one in tasks}, settings)


@pytest.fixture
def two():
    generator = np.random.default_rng(0)
    easy = generator.random(200)
    cost = TaskCost(100, 50.0, 3e8, 0.01)
    a = run("classical", [task("one", easy, cost=cost), task("two", easy[:50], "Retrieval", cost)])
    better = np.clip(easy + 0.05 + generator.normal(0, 0.02, 200), 0, None)
    b = run("echo", [task("one", better, cost=replace(cost, tokens_per_text=100.0, flops_per_text=7e8)),
                     task("two", easy[:50] + generator.normal(0, 0.02, 50), "Retrieval", cost)])  # fmt: skip
    return a, b


def test_differences_are_paired_and_wins_are_intervals_above_zero(two):
    outcome = compare(two)
    classical, echo = outcome.systems
    for name in ("one", "two"):
        assert echo.tasks[name].difference == paired(two[0][name].sample, two[1][name].sample)
        assert echo.tasks[name].interval == two[1][name].interval()
    assert (echo.wins, echo.losses) == (1, 0)
    assert classical.difference is None
    assert echo.average.mean == pytest.approx(two[1].average)
    assert echo.difference.mean == pytest.approx(two[1].average - two[0].average)
    assert outcome.tasks == ["two", "one"]  # in the order of the papers' categories
    assert echo.cost("tokens_per_text") == 75.0
    assert compare(two[::-1]).systems[1].losses == 1


def test_runs_of_one_label_are_seeds_and_their_spread_widens_the_interval():
    generator = np.random.default_rng(1)
    easy = generator.random(100)
    seeds = [run("a", [task("one", easy + shift)], str(shift)) for shift in (-0.2, 0.0, 0.1)]
    alone, together = compare(seeds[1:2]).systems[0], compare(seeds).systems[0]
    assert together.tasks["one"].main == pytest.approx(easy.mean() - 0.1 / 3)
    assert together.tasks["one"].values == pytest.approx([easy.mean() + shift for shift in (-0.2, 0.0, 0.1)])
    assert together.seed_deviation == pytest.approx(np.std([-0.2, 0.0, 0.1], ddof=1))
    assert alone.seed_deviation is None
    width = [one.tasks["one"].interval.high - one.tasks["one"].interval.low for one in (alone, together)]
    assert width[1] > 1.3 * width[0]


def test_what_cannot_be_compared_is_left_out_and_said(two):
    a, b = two
    other = replace(b["one"], revision="r2")
    extra = {"one": other, "two": b["two"], "three": task("three", [0.1, 0.2])}
    outcome = compare([a, replace(b, tasks=extra)])
    assert outcome.tasks == ["two"]
    assert "one is left out: the runs were scored on different data" in outcome.notes[0]
    assert "three is left out: classical was not scored on it" in compare([replace(b, tasks=extra), a]).notes[-1]
    without = replace(b["two"], sample=None)
    outcome = compare([a, replace(b, tasks={"two": without})])
    assert outcome.systems[1].tasks["two"].difference is None
    assert outcome.systems[1].tasks["two"].interval is None
    with pytest.raises(ConfigError, match="no task in common"):
        compare([a, replace(b, tasks={"one": other})])
    with pytest.raises(ConfigError, match="was named twice"):
        compare([a, a])
    with pytest.raises(ConfigError, match="There are no scores"):
        compare([])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no run"):
        compare([tmp_path])
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(DataError, match="is no record of a training run"):
        compare([tmp_path])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 11), (47.2, 47.3), (0.0, 0.0), (12, 98765)])
def test_ticks_span_what_is_drawn(low, high):
    marked = ticks(low, high)
    assert marked[0] <= low + 1e-9
    assert marked[-1] >= high - 1e-9
    assert 2 <= len(marked) <= 12
    if low > 0:
        marked = logarithmic_ticks(low, high)
        assert marked[0] < low <= high < marked[-1]


def test_steps_are_counted_in_whole_numbers_and_what_is_alone_stands_in_the_middle():
    assert ticks(1, 3, 8, whole=True) == [1, 2, 3]
    assert ticks(2, 2, 8, whole=True) == [1, 2, 3]
    assert all(value == int(value) for value in ticks(0, 7, 8, whole=True))
    low, *_, high = ticks(30, 30)
    assert (low + high) / 2 == 30


def test_a_tick_has_the_digits_that_its_step_has():
    for values, words in (([2, 2.25, 2.5], ["2.00", "2.25", "2.50"]), ([0, 2.5, 5], ["0", "2.5", "5.0"]),
                          ([0, 0.2, 0.4], ["0", "0.2", "0.4"]), ([0, 500, 1000], ["0", "500", "1,000"])):  # fmt: skip
        assert [tick_words(value, values) for value in values] == words


def training_run(folder):
    history = [{"step": step, "loss": 3 / step} for step in range(1, 9)]
    history += [{"step": step, "eval_dev_average": 0.4 + step / 100, "eval_runtime": 1.0} for step in (2, 4, 6, 8)]
    stages = [{"name": "contrastive", "history": history}]
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"name": folder.name, "stages": stages}))
    return folder


def test_curves_of_training_runs_are_read(two, tmp_path):
    folder = training_run(tmp_path / "anchor")
    two[1].save(folder / "evaluation")  # scores beside the run they belong to
    outcome = compare([two[0], folder])
    assert [system.label for system in outcome.systems] == ["classical", "echo"]
    assert {(curve.quantity, len(curve.points)) for curve in outcome.curves} == {("loss", 8), ("dev_average", 4)}
    assert {curve.run for curve in outcome.curves} == {"echo"}  # one name a run, that of its scores
    drawn = {series.name: series.style for chart in charts(outcome) for series in chart.series}
    assert {(one.name, one.style) for chart in charts(outcome) for one in chart.series} == set(drawn.items())
    assert [chart.name for chart in charts(outcome)] == [
        "scores", "differences", "compute", "contrastive-loss", "contrastive-dev_average"
    ]  # fmt: skip


def test_two_runs_of_one_name_are_told_apart(two, tmp_path):
    folders = [training_run(tmp_path / place / "anchor") for place in ("here", "there")]
    folders[1] = folders[1].rename(tmp_path / "there" / "again")
    names = [curve.run for curve in compare([*two, *folders]).curves]
    assert list(dict.fromkeys(names)) == ["anchor", "anchor (again)"]


def test_a_report_of_one_run_is_measured_against_nothing(two):
    assert "measured against" not in page(compare(two[:1]))
    assert "2 tasks, measured against classical." in page(compare(two))


@pytest.fixture(scope="module")
def folders(tiny_base, tmp_path_factory):
    """Two real runs with a name that would break a page that does not escape it."""
    root = tmp_path_factory.mktemp("runs")
    files = list(data.everything(root / "tasks").values())
    for template, label in (("classical-write", "classical <b>&"), ("echo-rewrite", "echo")):
        model = antiphon.build(tiny_base, template, max_tokens=64, dtype="float32", device="cpu")
        evaluate(model, files, cache=False, out=root / template, label=label)
    return [root / "classical-write", root / "echo-rewrite", training_run(root / "training")]


def test_the_command_compares_and_writes_a_folder(folders, tmp_path, capsys):
    out = tmp_path / "comparison"
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, folders), "--out", str(out)])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "6 tasks" in printed
    assert "difference" in printed
    tables = json.loads((out / "comparison.json").read_text())
    assert [system["label"] for system in tables["systems"]] == ["classical <b>&", "echo"]
    assert set(tables["systems"][1]["tasks"]) == {"search", "alike", "same", "kinds", "groups", "answers"}
    report.write_comparison(compare(folders), out)  # a comparison makes way for a comparison
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(DataError, match="nothing was written"):
        report.write_comparison(compare(folders), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


def test_plots_are_pictures(folders, tmp_path):
    out = report.write_comparison(compare(folders), tmp_path / "comparison")
    pictures = sorted(out.glob("*.svg"))
    assert len(pictures) == 5
    for picture in pictures:
        words = picture.read_text(encoding="utf-8")
        root = ElementTree.fromstring(words)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.get("height")) > 200
        assert "var(" not in words  # converters know no custom properties
        assert not re.search(r"(src|href)=|url\(|@import", words)
    scores = (out / "scores.svg").read_text(encoding="utf-8")
    assert "classical &lt;b&gt;&amp;" in scores
    assert all(name in scores for name in ("search", "groups", "Scores by task"))


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["short", "a name that is longer than a quarter of it", "endless" * 40])
def test_a_charts_names_leave_room_for_its_marks_and_its_words_fit(width, name):
    marks = tuple(Mark(value, row, value - 1, value + 1) for row, value in enumerate((1.0, 50.0, 99.0)))
    words = "a figure that is explained in more words than fit into the width of a telephone's screen"
    chart = Chart("c", "Title", "rows", words, "", (Series("one", marks, 0),), rows=(name, "b", "c"))
    root = ElementTree.fromstring(draw(chart, width))
    drawn = [float(circle.get("cx")) for circle in root.iter("circle")]
    assert max(drawn) - min(drawn) > 0.6 * width
    for text in root.iter("text"):
        middle, length = float(text.get("x")), 6.4 * len(text.text)
        share = {"label": 0.5, "tick": 0.5, "name": 1.0}.get(text.get("class"), 0.0)
        assert middle - share * length >= -1
        assert middle + (1 - share) * length <= width + 1
    told = [title.text for text in root.iter("text") for title in text.iter("title")]
    assert told == ([name] if len(name) > 200 else [])


def test_the_page_is_whole_and_asks_for_nothing(folders):
    from antiphon.cli.report.page import page

    html = page(compare(folders))
    assert "<b>&" not in html
    assert "classical &lt;b&gt;&amp;" in html
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?:", html)
    assert html.count('<svg class="chart"') == html.count('<svg class="chart narrow"') == 5


@pytest.fixture
def opened(folders, tmp_path):
    """The report in headless Chromium, with every request that it makes and everything that it complains of."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM} to open the report in")
    out = report.write_comparison(compare(folders), tmp_path / "comparison")
    with api.sync_playwright() as browsers:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = browsers.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        tab = browser.new_page(viewport={"width": 1000, "height": 800})
        requests, complaints = [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto((out / "report.html").as_uri())
        yield tab, requests, complaints
        browser.close()


@pytest.mark.slow
def test_the_report_renders_and_its_tables_sort(opened):
    tab, requests, complaints = opened
    assert tab.title() == "classical <b>& vs. echo"
    assert tab.locator("svg.chart:visible").count() == 5
    assert all(box["width"] > 400 and box["height"] > 100
               for box in (one.bounding_box() for one in tab.locator("svg.chart:visible").all()))  # fmt: skip
    tasks = tab.locator("table.sortable").nth(2)

    def column(number):
        return [cell.evaluate("cell => cell.dataset.value ?? cell.innerText") for cell in
                tasks.locator(f"tbody tr td:nth-child({number})").all()]  # fmt: skip

    before = column(1)
    head = tasks.locator("thead th").nth(3)
    head.locator("button").click()
    down = [float(value) for value in column(4)]
    assert down == sorted(down, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").press("Enter")  # by keyboard as well
    assert [float(value) for value in column(4)] == sorted(down)
    tasks.locator("thead th").nth(0).locator("button").click()
    assert column(1) == sorted(before, key=str.lower)
    assert [url for url in requests if not url.startswith("file:")] == []
    assert len(requests) == 1
    assert complaints == []


@pytest.mark.slow
def test_the_report_may_not_ask_even_if_it_wanted(opened):
    tab, _, complaints = opened
    tab.evaluate("() => { const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; "
                 "return fetch('http://127.0.0.1:9/').catch(() => 0) }")  # fmt: skip
    assert any("Content Security Policy" in words for words in complaints)
    tab.set_viewport_size({"width": 400, "height": 700})  # wide tables scroll by themselves, the page does not
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.locator("svg.narrow:visible").count() == tab.locator("svg.chart:visible").count() == 5
    assert all(box["width"] <= 400 for box in (one.bounding_box() for one in tab.locator("svg.chart:visible").all()))
