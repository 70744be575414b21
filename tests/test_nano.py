"""The embedded model: its recipe, its loop, and what is shipped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import antiphon
from antiphon import nano
from antiphon.data.docstrings import harvest, of_standard_library, pairs, standard_library
from antiphon.errors import ConfigError, DataError
from antiphon.model.parity import encode, health, unlike_texts
from tools.nano import corpus, pretrain
from tools.nano.recipe import Data, read

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "nano" / "pretrain.toml"


def test_the_shipped_model_is_small_and_reads_its_recipe():
    weights = nano.folder() / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    model = antiphon.build("nano", dtype="float32")
    assert sum(p.numel() for p in model.parameters()) < 4_000_000
    assert model[0].config.hidden_size == read(RECIPE).model.width
    assert not health(encode(model, unlike_texts())).collapsed


def test_the_shipped_model_is_a_language_model():
    """Far below token frequencies on docstrings that it never read; the exact figures are in its card."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(nano.folder())
    model = AutoModelForCausalLM.from_pretrained(nano.folder(), dtype=torch.float32)
    library = [docstring.text for docstring in harvest(standard_library() / "email")][:60]
    ids = np.concatenate([np.asarray(tokenizer(text)["input_ids"], dtype=np.uint16) for text in library])
    unigram = pretrain.unigram_perplexity(ids, ids, len(tokenizer))
    assert pretrain.perplexity(model, ids, row=128) < unigram / 3
    ids = tokenizer("Return the", return_tensors="pt", add_special_tokens=False)["input_ids"]
    written = tokenizer.decode(model.generate(ids, max_new_tokens=20, do_sample=False)[0])
    assert written.startswith("Return the")
    assert len(written) > 40


def tiny_recipe():
    recipe = read(RECIPE)
    return replace(
        recipe,
        data=Data(vocabulary=400, heldout_one_in=20),
        model=replace(recipe.model, width=32, layers=1, intermediate=64, positions=64),
        training=replace(
            recipe.training, tokens=512 * 40, batch_tokens=512, row=32, long_row=64, warmup_steps=4, learning_rate=0.01
        ),
    )


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    words = [docstring.text for docstring in of_standard_library()][:1400]
    for number, text in enumerate(words):
        body = f"{text}\n\nPart {number} of it.".replace("\\", "/").replace('"', "'")
        (root / f"m{number}.py").write_text(f'"""{body}"""\n', encoding="utf-8")
    (root / "broken.py").write_text("def :", encoding="utf-8")
    (root / "tests").mkdir()
    (root / "tests" / "left_out.py").write_text(f'"""{"left out " * 20}"""\n', encoding="utf-8")
    return root, corpus.build([root], tiny_recipe().data, seed=1)


def test_the_corpus_leaves_the_standard_library_out_and_repeats_itself(small_corpus):
    root, built = small_corpus
    assert built.documents > 1000
    assert len(built.heldout) > 0
    assert np.array_equal(corpus.build([root], tiny_recipe().data, seed=1).train, built.train)
    text = built.tokenizer.decode(built.train.tolist()[:5000])
    assert "left out left out" not in text
    with pytest.raises(DataError, match=r"Only \d docstrings"):
        corpus.build([root / "tests"], tiny_recipe().data, seed=1)


def test_training_learns_and_an_interrupted_run_ends_as_an_uninterrupted_one(small_corpus, tmp_path, monkeypatch):
    recipe, built = tiny_recipe(), small_corpus[1]
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 5)
    (tmp_path / "whole").mkdir()
    losses = []
    whole, _ = pretrain.pretrain(built, recipe, tmp_path / "whole", on_step=lambda step, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 1
    assert len(losses) == recipe.training.steps == 40

    (tmp_path / "parts").mkdir()

    def stop(step, loss):
        if step == 37:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(built, recipe, tmp_path / "parts", on_step=stop)
    parts, _ = pretrain.pretrain(built, recipe, tmp_path / "parts")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name


def test_the_schedule_warms_up_and_goes_down_to_zero():
    plan = read(RECIPE).training
    rates = [plan.rate_at(step) for step in range(plan.steps)]
    assert rates[0] < rates[plan.warmup_steps] == 1.0
    assert rates[-1] == pytest.approx(0, abs=0.01)
    assert {plan.row_at(0), plan.row_at(plan.steps - 1)} == {plan.row, plan.long_row}


def test_unigram_perplexity_of_a_fair_coin_is_two():
    coin = np.array([0, 1] * 5000, dtype=np.uint16)
    assert pretrain.unigram_perplexity(coin, coin, 2) == pytest.approx(2.0, rel=1e-3)
    assert math.isfinite(pretrain.unigram_perplexity(coin, np.array([7], dtype=np.uint16), 8))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("width = 256", "widht = 256", "widht is unknown|width is missing"),
        ("width = 256", 'width = "wide"', "width of .* is 'wide'; a int is wanted"),
        ("[data]", "[dta]", "is unknown in|is missing from"),
        ("[data]", "[data", "not valid TOML"),
    ],
)
def test_a_recipe_with_a_mistake_says_where(old, new, sentence, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=sentence):
        read(path)
    with pytest.raises(ConfigError, match="There is no recipe"):
        read(tmp_path / "absent.toml")


def test_docstring_pairs_are_summary_and_body(tmp_path):
    (tmp_path / "m.py").write_text(
        'def f():\n    """Split a text into words.\n\n    '
        + "Words are runs of letters; the rest is dropped. " * 3
        + '"""\n'
        'def g():\n    """One line only, without anything behind it whatever."""\n'
    )
    found = list(pairs(harvest(tmp_path)))
    assert [(pair.name, pair.summary) for pair in found] == [("m.f", "Split a text into words.")]
    assert found[0].body.startswith("Words are runs")
