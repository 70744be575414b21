"""Recipes: strict tables, sentences for what is wrong, variants and overrides by dotted name."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.data.settings import assignments, fill
from antiphon.errors import ConfigError
from antiphon.training.losses import ReconstructionSettings
from antiphon.training.recipe import read

RECIPE = {
    "name": "short",
    "model": {"base": "nano"},
    "data": {"sets": [{"name": "docs", "source": "docstrings"}]},
    "stage": [
        {"name": "one", "loss": "reconstruction", "steps": 10},
        {"name": "two", "loss": "contrastive", "steps": 5, "lora": {"rank": 4}},
    ],
    "variant": {"long": {"steps": 100, "stage.two.lora.rank": 8}, "other": {"model.base": "somebody/model"}},
}
ROOT = Path(__file__).resolve().parents[2]


def changed(**tables):
    return {**RECIPE, **tables}


def test_a_recipe_is_read_from_a_file_as_from_a_mapping(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'name = "short"\n[model]\nbase = "nano"\n[data]\nsets = [{name = "docs", source = "docstrings"}]\n'
        '[[stage]]\nname = "one"\nloss = "reconstruction"\nsteps = 10\n'
        '[[stage]]\nname = "two"\nloss = "contrastive"\nsteps = 5\nlora = {rank = 4}\n'
    )
    read_file = read(path)
    assert read_file.folder == str(tmp_path)
    assert read_file.model_copy(update={"folder": "."}) == read(RECIPE)
    assert read(read_file) == read_file  # a recipe is one already


def test_variants_and_overrides_replace_single_settings():
    long = read(RECIPE, variant="long")
    assert [stage.steps for stage in long.stage] == [100, 100]
    assert long.stage[1].lora.rank == 8
    given = read(RECIPE, overrides={"stage.one.steps": 3, "model.template": "echo", "seed": 7})
    assert [stage.steps for stage in given.stage] == [3, 5]
    assert (given.model.template, given.seed) == ("echo", 7)
    both = read(RECIPE, variant="long", overrides={"stage.*.steps": 2})  # the override has the last word
    assert [stage.steps for stage in both.stage] == [2, 2]
    assert RECIPE["stage"][0]["steps"] == 10  # what was given is not changed


def test_the_default_variant():
    recipe = changed(default_variant="other")
    assert read(recipe).model.base == "somebody/model"
    assert read(recipe, variant="long").model.base == "nano"


def test_assignments_are_toml_or_words():
    given = assignments(["steps=10", "model.base=Qwen/Qwen3-0.6B", "a.b=[1, 2]", "x=true", 'y="7"', "z=1e-4", "e="])
    assert given == {
        "steps": 10,
        "model.base": "Qwen/Qwen3-0.6B",
        "a.b": [1, 2],
        "x": True,
        "y": "7",
        "z": 1e-4,
        "e": "",
    }
    with pytest.raises(ConfigError, match="'steps' is no assignment"):
        assignments(["steps"])


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (changed(sed=1), r"sed is unknown; did you mean 'seed'\?"),
        (changed(model={"base": "nano", "pooled": "mean"}), r"model.pooled is unknown; did you mean 'pooling'\?"),
        (changed(model={}), "model.base is missing"),
        (changed(stage=[{"name": "one", "loss": "mntp", "step": 4}]), r"stage.0.step is unknown; did you mean 'steps'"),
        (changed(stage=[{"name": "one", "loss": "mntp"}]), "has steps or epochs"),
        (changed(stage=[{"name": "one", "loss": "mntp", "steps": 4, "epochs": 1}]), "has steps or epochs"),
        (changed(stage=[{"name": "one", "loss": "mntp", "steps": 0}]), r"stage.0.steps: .* \(it is 0\)"),
        (changed(stage=[{"name": "one", "loss": "mntp", "steps": "many"}]), r"\(it is 'many'\)"),
        (changed(stage=[]), "stage: "),
        (changed(stage=[RECIPE["stage"][0]] * 2), "names of their own"),
        (
            changed(stage=[{**RECIPE["stage"][0], "batch_size": 10, "device_batch_size": 4}]),
            "10 is no multiple of device_batch_size 4",
        ),
        (changed(data={}), "one of mixture, sets and texts is wanted, and none of them is given"),
        (changed(data={"texts": "a.txt", "mixture": "b.toml"}), "mixture and texts"),
        ({key: value for key, value in RECIPE.items() if key != "data"}, "'one' has no data"),
        (changed(stage=[{**RECIPE["stage"][0], "keep": 1}]), "keep"),
        (
            changed(stage=[{**RECIPE["stage"][0], "lora": {"ranks": 3}}]),
            r"lora.ranks is unknown; did you mean 'rank'\?",
        ),
    ],
)
def test_what_is_wrong_is_a_sentence(recipe, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read(recipe)


def test_what_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="There is no recipe"):
        read(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"broken.toml is no TOML: .*end of document"):
        read(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match=r"no variant 'lang'; did you mean 'long'\?"):
        read(RECIPE, variant="lang")
    with pytest.raises(ConfigError, match=r"stage\.three\.steps names no stage; take one of one, two"):
        read(RECIPE, overrides={"stage.three.steps": 1})
    with pytest.raises(ConfigError, match="seed is no table"):
        read(changed(seed=3), overrides={"seed.value": 1})


def test_settings_are_filled_strictly():
    assert fill(ReconstructionSettings, {"alpha": 0.5}, "here") == ReconstructionSettings(alpha=0.5)
    with pytest.raises(ConfigError, match=r"here.alfa is unknown; did you mean 'alpha'\?"):
        fill(ReconstructionSettings, {"alfa": 0.5}, "here")
    with pytest.raises(ConfigError, match=r"here.alpha: .* \(it is 'much'\)"):
        fill(ReconstructionSettings, {"alpha": "much"}, "here")
    with pytest.raises(ConfigError, match="a share between 0 and 1"):  # the settings' own check
        fill(ReconstructionSettings, {"alpha": 2}, "here")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*/*.toml")), ids=lambda path: path.stem)
def test_every_recipe_parses(path):
    if path.parent.name == "mixtures" or path.name == "pretrain.toml":
        pytest.skip("no recipe of a run")
    assert read(path).stage
