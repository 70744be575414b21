"""experiments/: files that say what is run, runs that are done once, and tables that come out of their records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest

from antiphon.cli.report.svg import drawing
from antiphon.errors import ConfigError
from antiphon.evaluation.scores import load_scores
from antiphon.training.stage import opened
from antiphon.training.trial import try_losses
from experiments import job
from experiments.experiment import Contrast, Experiment, read_experiment
from experiments.job import Job
from experiments.run import main, report, run_all
from experiments.tables import CHART, TABLE, chart_of, read_results, tables_of

HERE = Path(job.__file__).resolve().parent
FILES = sorted(HERE.glob("*.toml"))
RESULTS = sorted(path.parent for path in (HERE / "results").glob(f"*/{TABLE}"))
WORDS = ["list", "string", "file", "path", "text", "line", "number", "object"]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    pairs = [{"query": f"sort a {a} by {b}", "positive": f"The {a}, by its {b}."} for a in WORDS for b in WORDS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    rows = [f"{a} and {b}\t{a} or {b}\t{number % 6}" for number, (a, b) in enumerate(pairwise(WORDS))]
    (tmp_path / "sts.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", "sort a list by path\tx\t1", *rows]))
    stage = {"loss": "contrastive", "steps": 2, "batch_size": 4, "learning_rate": 1e-4}
    table = {
        "name": "small",
        "question": "Does it run?",
        "hours": 0.01,
        "seeds": (1, 2),
        "recipe": {
            "model": {"base": "nano", "template": "classical", "pooling": "last", "max_tokens": 16},
            "data": {"sets": [{"name": "pairs", "source": str(tmp_path / "pairs.jsonl")}]},
            "stage": [{"name": "contrastive", **stage}],
        },
        "evaluation": {"tasks": [str(tmp_path / "sts.tsv")], "instructions": {"sts": ""}},
        "arm": {
            "trained": {"about": "two steps", "stages": ["contrastive"]},
            "raw": {"about": "none", "settings": {"model.template": "classical-write"}},
        },
    }
    return Experiment.model_validate(table)


def names(tasks: Sequence[str]) -> set[str]:
    """Names of local tasks, which a template with a place for an instruction needs one for, "" where none is said."""
    single = [Path(task) for task in tasks if not task.startswith("probe:")]
    return {path.stem for path in single if path.parent != Path("data")}  # data/sts stands for all that is in there


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_names_runs_that_its_recipe_has(path: Path):
    read = read_experiment(path)
    assert read.name == path.stem
    for chosen in (read, read.quickened()):
        assert names(chosen.evaluation.tasks) <= set(chosen.evaluation.instructions or {})
        for arm, seed in chosen.runs():
            if chosen.arm[arm].stages:
                recipe = chosen.recipe_of(arm, seed, out=Path("x"), texts=Path("y"))
                assert [stage.name for stage in recipe.stage] == list(chosen.arm[arm].stages)
                assert recipe.seed == seed
                looks = [stage.evaluation for stage in recipe.stage if stage.evaluation is not None]
                assert all(names(look.tasks) <= set(look.instructions) for look in looks)
            else:
                assert chosen.model_of(arm).base


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_arm_has_losses_that_its_model_can_be_trained_by(path: Path):
    read = read_experiment(path)
    tried: list[object] = []
    for arm in read.arm:
        if not read.arm[arm].stages:
            continue
        recipe = read.recipe_of(arm, 1, out=Path("x"), texts=None)
        asked = [recipe.model.model_dump(), *((stage.loss, stage.settings) for stage in recipe.stage)]
        if asked not in tried:
            tried.append(asked)
            try_losses(opened(recipe.model, "nano"), recipe.stage)


def test_an_arm_that_trains_nothing_is_run_once(experiment: Experiment):
    assert experiment.runs() == [("trained", 1), ("raw", 1), ("trained", 2)]
    assert experiment.runs(["raw"]) == [("raw", 1)]
    with pytest.raises(ConfigError, match="did you mean 'trained'"):
        experiment.runs(["trainde"])


def test_what_a_file_may_not_say_is_named_with_its_neighbour(tmp_path: Path, experiment: Experiment):
    path = tmp_path / "wrong.toml"
    path.write_text('name = "wrong"\nquestion = ""\nhours = 1\n[recipe]\n[evaluation]\ntasks = ["x"]\nlimits = 3\n'
                    '[arm.one]\nabout = ""\n')  # fmt: skip
    with pytest.raises(ConfigError, match=r"evaluation.limits is unknown; did you mean 'limit'"):
        read_experiment(path)
    table = experiment.model_dump()
    table["arm"]["raw"]["stages"] = ("contrastiv",)
    with pytest.raises(ValueError, match="did you mean 'contrastive'"):
        Experiment.model_validate(table)
    table = experiment.model_dump()
    table["contrast"] = {"one": {"about": "", "systems": {"a": ["trained"], "b": ["rw"]}}}
    with pytest.raises(ValueError, match="contrast one names the arm 'rw'; did you mean 'raw'"):
        Experiment.model_validate(table)


def test_texts_of_the_tasks_are_those_of_their_files(experiment: Experiment):
    lines = Path(experiment.evaluation.tasks[0]).read_text().splitlines()[1:]
    wanted = {text for line in lines for text in line.split("\t")[:2]}
    assert set(job.evaluation_texts(experiment)) == wanted


@pytest.mark.slow
def test_runs_are_done_once_and_reported(tmp_path: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]):
    jobs = [
        Job(experiment=experiment, arm=arm, seed=seed, work=tmp_path / "work", results=tmp_path / "results")
        for arm, seed in experiment.runs()
    ]
    assert not any(one.is_done() for one in jobs)
    with pytest.raises(ConfigError, match="No run of small is done"):
        report(experiment, jobs)
    job.run(first := jobs[1])
    assert run_all(jobs[:2], 2)  # in a process of its own, and the one that is done is left
    assert all(one.is_done() for one in jobs[:2])
    rows = json.loads((jobs[0].kept / "run.json").read_text())["stages"][0]["data"][0]["rows"]
    assert rows == len(WORDS) ** 2 - 4  # one query stands in the task too, and three have nearly the same words
    report(experiment, jobs)
    table = (tmp_path / "results" / TABLE).read_text()
    rows = [line.split(" | ")[0].strip("| ") for line in table.splitlines() if line.startswith("|")]
    assert rows == ["arm", "---", "trained", "raw", "arm", "---", "trained"]  # scores, then how the loss fell
    assert "<svg" in (tmp_path / "results" / "chart.svg").read_text()
    changed = experiment.model_copy(update={"evaluation": experiment.evaluation.model_copy(update={"limit": 5})})
    with pytest.raises(ConfigError, match="another evaluation"):
        replace(first, experiment=changed).is_done()


def test_a_record_of_before_a_setting_existed_is_that_of_its_run(tmp_path: Path):
    """In each of its tables; one with a setting that is none any more is not."""
    experiment = read_experiment(HERE / "anchor-smollm2.toml")
    shutil.copytree(HERE / "results" / "anchor-smollm2" / "anchor-1", tmp_path / "anchor-1")
    one = Job(experiment=experiment, arm="anchor", seed=1, work=tmp_path, results=tmp_path)
    file = one.kept / "job.json"
    kept = json.loads(file.read_text())
    asked = kept["asked"]
    for table, setting in {"model": "prompts", "data": "only", "evaluation": "drop_overlap"}.items():
        del asked[table][setting]
    for stage in asked["stages"]:
        del stage["gradient_clip"]
    file.write_text(json.dumps(kept))
    assert one.is_done()
    asked["stages"][0]["of_old"] = 1
    file.write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match="another stages"):
        one.is_done()


def test_a_mistake_is_a_sentence_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none.toml")]) == 2
    assert "There is no recipe" in capsys.readouterr().err


def test_a_contrast_takes_several_arms_for_one_system_and_leaves_out_what_is_not_done():
    read, folder = read_experiment(HERE / "anchor-smollm2.toml"), HERE / "results" / "anchor-smollm2"
    systems = {"one": ("baseline",), "both": ("baseline-long", "baseline-flops"), "none": ("new",)}
    changed = {
        "arm": {**read.arm, "new": read.arm["anchor"]},
        "contrast": {"x": Contrast(about="Two", systems=systems)},
    }
    read = read.model_copy(update=changed)
    runs = read.runs(["baseline", "baseline-long", "baseline-flops", "new"], [1, 2])
    jobs = [Job(experiment=read, arm=arm, seed=seed, work=folder, results=folder) for arm, seed in runs]
    begun = [one for one in jobs if one.is_done()]
    _, table = tables_of(read, *read_results(begun), begun).split("Two:\n\n")
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()[2:]]
    wanted = {
        name: [100 * load_scores(one.kept / "evaluation").average for one in begun if one.arm in arms]
        for name, arms in systems.items()
    }
    assert [row[:2] for row in rows] == [["one", "2"], ["both", "4"]]
    for name, _, average, deviation, gain, *_, averages in rows:
        assert averages.split(", ") == [f"{value:.2f}" for value in wanted[name]]
        assert float(average) == pytest.approx(mean(wanted[name]), abs=0.01)
        assert float(deviation) == pytest.approx(stdev(wanted[name]), abs=0.01)
        assert (
            gain == ""
            if name == "one"
            else float(gain) == pytest.approx(mean(wanted[name]) - mean(wanted["one"]), abs=0.01)
        )


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_tables_and_charts_come_out_of_the_records_beside_them(folder: Path):
    experiment = read_experiment(HERE / f"{folder.name}.toml")
    runs = experiment.runs()
    jobs = [Job(experiment=experiment, arm=arm, seed=seed, work=folder, results=folder) for arm, seed in runs]
    begun = [one for one in jobs if one.is_done() or one.is_trained()]
    outcome, curves = read_results(begun)
    assert f"{tables_of(experiment, outcome, curves, begun)}\n" == (folder / TABLE).read_text()
    assert drawing(chart_of(experiment, outcome, curves)) == (folder / CHART).read_text()
