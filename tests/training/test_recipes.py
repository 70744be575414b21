"""Every recipe of the repository: its variants plan, and it takes two steps on a tiny model of its architecture."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from conftest import make_base
from test_training import phrase
from transformers import AutoTokenizer

import antiphon
from antiphon import training
from antiphon.data.mixtures import read_settings
from antiphon.errors import ConfigError
from antiphon.model.flops import PUBLISHED, shape_of
from antiphon.training.recipe import read

ROOT = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = [path for path in sorted(ROOT.glob("*/*.toml")) if path.parent.name != "mixtures" and path.stem != "pretrain"]
ARCHITECTURES = {
    "llama": "llama",
    "Llama": "llama",
    "LLaMA": "llama",
    "Qwen2": "qwen2",
    "Qwen3": "qwen3",
    "Mistral": "mistral",
}
CHAT = "{% for message in messages %}<s>user: {{ message['content'] }}</s>{% endfor %}"


def variants(path: Path) -> list[str | None]:
    return [None, *tomllib.loads(path.read_text()).get("variant", {})]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny echo-data folder with six of its fourteen sets, and texts."""
    root = tmp_path_factory.mktemp("recipes")
    for name in [*[one.name for one in read_settings(ROOT / "mixtures" / "echo-data.toml")][::3], "pairs"]:
        rows = [
            {"query": phrase(n, 4), "positive": phrase(n + 50, 8), "negative": phrase(n + 90, 8)} for n in range(12)
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "texts.txt").write_text("\n".join(phrase(number, 12) for number in range(30)))
    return root


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Make a base of an architecture, once, with a chat template."""
    root = tmp_path_factory.mktemp("bases")

    def of(architecture: str) -> Path:
        folder = root / architecture
        if not folder.exists():
            make_base(folder, architecture, hidden_size=64, num_hidden_layers=1, num_attention_heads=8)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            tokenizer.chat_template = CHAT
            tokenizer.save_pretrained(folder)
        return folder

    return of


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_variant_parses_and_plans_without_data_or_weights(path):
    names = set()
    for variant in variants(path):
        recipe = read(path, variant=variant)
        if recipe.model.base == "nano" or any(stage.steps is None for stage in recipe.stage):
            continue  # planned over their data, below
        names.add((recipe.name, variant))
        planned = training.plan(recipe)
        assert planned.hours > 0
        for stage in planned.stages:
            assert not stage.measured
            assert stage.flops > 0
            # the card of the recipe holds it, by the estimate
            assert planned.shape.parameters * 2 < stage.memory
    assert len({name for name, _ in names}) >= len(names) - 1  # the default is a variant too


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.slow
def test_two_steps_on_a_tiny_model(path, place, tiny, tmp_path):
    recipe = read(path)
    base = recipe.model.base
    architecture = next(kind for part, kind in ARCHITECTURES.items() if part in base) if base != "nano" else "llama"
    overrides = {
        "out": str(tmp_path / "run"),
        "model.base": str(tiny(architecture)),
        "model.attention": None,
        "model.max_tokens": 128,
        "steps": 2,
        "epochs": None,
        "batch_size": 2,
        "device_batch_size": None,
        "precision": "float32",
    }
    if recipe.data is not None and recipe.data.texts is None:
        overrides["data.root"] = str(place)
    if base == "nano" and recipe.data.texts is None:
        overrides["data.sets"] = [{"name": "pairs", "source": "pairs.jsonl"}]
    for stage in recipe.stage:
        if recipe.data_of(stage).texts is not None:
            name = "data" if stage.data is None else f"stage.{stage.name}.data"
            overrides[f"{name}.texts"] = str(place / "texts.txt")
            if recipe.data_of(stage).block is not None:
                overrides[f"{name}.block"] = 32
        if "matryoshka" in stage.settings:
            overrides[f"stage.{stage.name}.settings.matryoshka"] = [64, 32]
    planned = training.plan(read(path, overrides=overrides))
    assert all(stage.measured and stage.sets for stage in planned.stages)
    folder = antiphon.train(path, overrides=overrides)
    run = json.loads((folder / "run.json").read_text())
    assert [stage["steps"] for stage in run["stages"]] == [2] * len(recipe.stage)
    assert antiphon.load(folder, device="cpu").encode(["a text"]).shape == (1, 64)


def test_shapes_are_the_models(tiny):
    """Parameters, counted by the formula, are those of the model; the published sizes come out right."""
    for architecture in ("llama", "qwen3", "mistral"):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(tiny(architecture))
        matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
        assert shape_of(str(tiny(architecture))).parameters == matrices
    billions = {name: shape.parameters / 1e9 for name, shape in PUBLISHED.items()}
    assert billions["meta-llama/Llama-3.2-1B-Instruct"] == pytest.approx(1.24, abs=0.01)
    assert billions["meta-llama/Llama-3.1-8B-Instruct"] == pytest.approx(8.03, abs=0.01)
    assert billions["Qwen/Qwen2.5-1.5B-Instruct"] == pytest.approx(1.54, abs=0.01)
    assert billions["mistralai/Mistral-7B-Instruct-v0.1"] == pytest.approx(7.24, abs=0.01)
    assert billions["princeton-nlp/Sheared-LLaMA-1.3B"] == pytest.approx(1.35, abs=0.01)


def test_a_plan_for_an_unknown_card_is_a_sentence():
    with pytest.raises(ConfigError, match=r"plan.gpu is 'abacus'; take one of A100"):
        training.plan(read(ROOT / "anchor" / "anchor.toml", overrides={"plan.gpu": "abacus"}))
