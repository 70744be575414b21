"""Layers chosen without labels: every depth's vectors are those of the cut model, and the rank is the naive one."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_base, vectors

import antiphon
from antiphon.cli import main
from antiphon.encoding.layer_choice import layer_vectors, reciprocal_rank
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.model.parity import compare, unlike_texts

WORDS = [
    "river",
    "stone",
    "cloud",
    "market",
    "paper",
    "engine",
    "garden",
    "winter",
    "signal",
    "copper",
    "island",
    "letter",
]
TEXTS = [" ".join([*(WORDS[(n + place) % len(WORDS)] for place in range(12)), str(n)]) for n in range(20)]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2", "smollm3", "phi", "gpt_neox", "mixtral"])
def test_every_depth_has_the_vectors_of_the_model_that_is_cut_there(tmp_path, architecture, pooling):
    base = make_base(tmp_path / "base", architecture, num_hidden_layers=4)
    settings = {"pooling": pooling, "max_tokens": 64, "dtype": "float32"}
    whole = antiphon.build(base, "echo", **settings)
    texts = [text for text in unlike_texts() if text.strip()]
    before = vectors(whole, texts)
    found = layer_vectors(whole, texts)
    assert sorted(found) == [1, 2, 3, 4]
    for layers, ours in found.items():
        cut = antiphon.build(base, "echo", layers=layers, **settings)
        assert compare(vectors(cut, texts, task="document"), ours.astype(np.float32)).equal, layers
    assert not compare(found[1].astype(np.float32), found[4].astype(np.float32)).equal
    np.testing.assert_array_equal(vectors(whole, texts), before)
    assert whole[0].model.config.num_hidden_layers == len(whole[0].model.layers) == 4


def naive(first: np.ndarray, second: np.ndarray, *, standardized: bool) -> float:
    both = np.vstack([first, second])
    if standardized:
        both = np.array([[(x - column.mean()) / column.std() for x in column] for column in both.T]).T
    first, second = both[: len(first)], both[len(first) :]
    found = []
    for number, half in enumerate(first):
        cosines = [half @ other / np.linalg.norm(half) / np.linalg.norm(other) for other in second]
        found.append(1 / sum(cosine >= cosines[number] - 1e-12 for cosine in cosines))
    return sum(found) / len(found)


@pytest.mark.parametrize("standardized", [False, True])
def test_the_rank_is_the_naive_one(standardized):
    draw = np.random.default_rng(0)
    first = draw.normal(size=(30, 8))
    second = first + draw.normal(size=(30, 8))
    second[:, 0] += 5.0
    how = {"standardized": standardized}
    assert reciprocal_rank(first, second, **how) == pytest.approx(naive(first, second, **how))
    assert reciprocal_rank(first, first, **how) == 1.0
    assert reciprocal_rank(first, second[draw.permutation(30)], **how) < 0.3
    constant = np.hstack([first, np.ones((30, 1))]), np.hstack([second, np.ones((30, 1))])
    assert reciprocal_rank(*constant, standardized=True) == pytest.approx(naive(first, second, standardized=True))


def test_the_best_depth_is_chosen_and_of_equal_ones_the_first(tiny_base, monkeypatch):
    model = antiphon.build(tiny_base, max_tokens=64, dtype="float32")
    choice = antiphon.choose_layers(model, TEXTS)
    assert choice.texts == len(TEXTS)
    assert choice.scores[choice.layers] == max(choice.scores.values())
    assert antiphon.choose_layers(model, TEXTS) == choice
    monkeypatch.setattr("antiphon.encoding.layer_choice.reciprocal_rank", lambda first, second, standardized: 0.5)
    assert antiphon.choose_layers(model, TEXTS).layers == 1


def test_what_cannot_be_chosen_by_is_a_sentence(tiny_base, tmp_path):
    model = antiphon.build(tiny_base, max_tokens=64)
    with pytest.raises(DataError, match="1 of the texts have 8 words or more, and at least 16"):
        antiphon.choose_layers(model, ["too short", TEXTS[0]])
    untold = antiphon.build(make_base(tmp_path / "base", "gptj"), max_tokens=64)
    with pytest.raises(ModelError, match="cannot be told"):
        antiphon.choose_layers(untold, TEXTS)


@pytest.mark.slow
def test_the_command_line_says_what_it_keeps(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["build", "nano", "--layers", "auto", "--max-tokens", "64", "--out", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert not ended.value.code, said
    kept = antiphon.load(tmp_path / "out")[0].model.config.num_hidden_layers
    assert f"{kept} of 5 layers are kept: the halves of 200 docstrings" in said
    with pytest.raises(SystemExit) as ended:
        main(["build", "nano", "--layers", "many", "--out", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "layers is 'many'; a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--5", "²", "1.5", "0"])
def test_what_is_no_number_is_a_sentence(word, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["build", "nano", f"--layers={word}", "--out", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "a whole number of at least 1 is wanted" in capsys.readouterr().err


def test_pairs_are_labels_and_each_side_is_embedded_as_such(tiny_base):
    model = antiphon.build(tiny_base, "echo", max_tokens=64, dtype="float32")
    pairs = [(f"query {n} of {WORDS[n % 12]}", text) for n, text in enumerate(TEXTS)]
    choice = antiphon.choose_layers(model, pairs=[*pairs, ("another query of the first", TEXTS[0])])
    assert choice.texts == len(TEXTS)
    asked = vectors(model, [query for query, _ in pairs], task="query")
    found = vectors(model, TEXTS, task="document")
    assert choice.scores[max(choice.scores)] == pytest.approx(naive(asked, found, standardized=False))
    assert choice.scores[choice.layers] == max(choice.scores.values())
    with pytest.raises(DataError, match="15 documents"):
        antiphon.choose_layers(model, pairs=[(query, text) for query, text in pairs[:15]] * 2)
    with pytest.raises(ConfigError, match="both are given"):
        antiphon.choose_layers(model, TEXTS, pairs=pairs)
