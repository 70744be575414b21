"""Mixtures: rows by ratio and cap, instructions by part and side, weights, what is left out, and the plan."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

import antiphon
from antiphon import training
from antiphon.cli.report import plan_lines
from antiphon.data.mixtures import Mixture, PairSettings, plan, read_settings, settings_of
from antiphon.data.pairs import is_there
from antiphon.data.pairs.pair_folders import ECHO_DATA
from antiphon.errors import ConfigError, DataError
from antiphon.training.recipe import read

ROOT = Path(__file__).resolve().parents[2]
ECHO_MIXTURE = ROOT / "recipes" / "mixtures" / "echo-data.toml"
TRAIN = ROOT.parent / "shared" / "data" / "train"
real_data = pytest.mark.skipif(not TRAIN.is_dir(), reason="needs the folder shared/data/train beside the checkout")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three sets: a of 100 rows without negatives, b of 40 with one, c of 10 with two."""
    for name, rows, negatives in (("a", 100, 0), ("b", 40, 1), ("c", 10, 2)):
        lines = [
            {
                "query": f"{name} q{n}",
                "positive": f"{name} p{n}",
                "negatives": [f"{name} n{n}.{k}" for k in range(negatives)],
            }
            for n in range(rows)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def setting(name: str, **options) -> PairSettings:
    return PairSettings(name=name, **{"source": f"{name}.jsonl", **options})


def test_ratio_and_cap_draw_rows_by_seed(folder):
    def drawn(seed: int, **options) -> list[str]:
        mixture = Mixture.of([setting("a", **options), setting("b")], seed=seed, root=folder)
        assert mixture.source_rows == {"a": 100, "b": 40}
        assert len(mixture.datasets["b"]) == 40
        return mixture.datasets["a"]["anchor"][:]

    tenth = drawn(1, ratio=0.1)
    assert len(tenth) == len(set(tenth)) == 10
    assert tenth == drawn(1, ratio=0.1) != drawn(2, ratio=0.1)
    assert len(drawn(1, cap=7)) == len(drawn(1, ratio=0.5, cap=7)) == 7
    assert drawn(1, cap=200) == drawn(1) == [f"a q{n}" for n in range(100)]
    alone = Mixture.of([setting("a", ratio=0.1)], seed=1, root=folder)
    assert alone.datasets["a"]["anchor"][:] == tenth  # whatever else is in the mixture


def test_several_instructions_take_turns_row_by_row(folder):
    mixture = Mixture.of([setting("b", instruction=("one", "two", "three")), setting("c")], seed=0, root=folder)
    assert list(mixture.datasets) == ["b#1", "b#2", "b#3", "c"]
    assert mixture.datasets["b#2"]["anchor"][:] == [f"b q{n}" for n in range(1, 40, 3)]
    told = mixture.prompts(antiphon.build("nano", "echo"))
    assert [told[name]["anchor"] for name in told] == ["one", "two", "three", ""]


SIDES = {
    "asymmetric": ({}, ["find", "", ""], ["query", "document", "document"]),
    "both": ({"document_instruction": "keep"}, ["find", "keep", "keep"], ["query", "document", "document"]),
    "symmetric": ({"symmetric": True}, ["find", "find", "find"], ["query", "query", "query"]),
    "code": ({"symmetric": True, "symmetric_documents": False}, ["find", "", ""], ["query", "query", "query"]),
}


@pytest.mark.parametrize("name", SIDES)
def test_who_hears_what_on_which_side(name, folder):
    options, instructions, sides = SIDES[name]
    mixture = Mixture.of([setting("b", instruction="find", **options)], seed=0, root=folder)
    assert list(mixture.router_mapping["b"].values()) == sides
    slots = antiphon.build("nano", "Q {prompt}\nsay {text} again [{text}]", pooling="mean")  # read on both sides
    assert list(mixture.prompts(slots)["b"].values()) == instructions
    stock = antiphon.build("nano", "classical", pooling="last")
    prefixes = [f"Instruct: {said},\nQuery: " if said else "Query: " for said in instructions]
    wanted = [prefix if side == "query" else "Document: " for prefix, side in zip(prefixes, sides, strict=True)]
    assert list(mixture.prompts(stock)["b"].values()) == wanted


def test_the_collator_says_what_the_model_would_encode(folder):
    mixture = Mixture.of([setting("b", instruction="find", symmetric=True), setting("c")], seed=0, root=folder)
    model = antiphon.build("nano", "echo")
    collate = SentenceTransformerDataCollator(
        preprocess_fn=model.preprocess, router_mapping=mixture.router_mapping, prompts=mixture.prompts(model)
    )
    for name, prompt in (("b", "find"), ("c", "")):
        row = mixture.datasets[name][3]
        batch = collate([{**row, "dataset_name": name}])
        for column, side in mixture.router_mapping[name].items():
            wanted = model.preprocess([row[column]], prompt=prompt if side == "query" else "", task=side)
            assert batch[f"{column}_input_ids"].tolist() == wanted["input_ids"].tolist()


def test_what_the_trainer_does_to_its_data_sets_leaves_the_mixture_as_it_was(folder):
    mixture = Mixture.of([setting("b")], seed=0, root=folder)
    mixture.datasets["b"].set_transform(lambda batch: {"gone": list(batch["anchor"])})
    assert mixture.datasets["b"]["anchor"][0] == "b q0"
    assert plan(mixture, 4).sets[0].batches == 10


def test_weights_are_shared_by_the_parts_of_a_set(folder):
    sets = [setting("a", weight=2.0), setting("b", weight=1.0, instruction=("one", "two", "three"))]
    mixture = Mixture.of(sets, seed=0, root=folder)
    assert mixture.weights == pytest.approx({"a": 2.0, "b#1": 14 / 40, "b#2": 13 / 40, "b#3": 13 / 40})
    assert mixture.sampling.names == ("a", "b#1", "b#2", "b#3")
    assert Mixture.of([setting("a"), setting("b")], seed=0, root=folder).weights is None


def test_a_set_that_is_not_there_is_an_error_or_left_out(folder, caplog):
    with pytest.raises(DataError, match=r"There is no file .*gone\.jsonl"):
        Mixture.of([setting("a"), setting("gone")], seed=0, root=folder)
    with caplog.at_level(logging.WARNING):
        mixture = Mixture.of([setting("a"), setting("gone", required=False)], seed=0, root=folder)
    assert list(mixture.datasets) == ["a"]
    assert "1 sets of the mixture are not there and left out: gone" in caplog.text
    assert is_there("docstrings")  # what is no file cannot be left out for lack of one
    assert is_there("owner/name:default")
    with pytest.raises(DataError, match="None of the 1 sets of the mixture is there"):
        Mixture.of([setting("gone", required=False)], seed=0, root=folder)


def test_what_an_evaluation_holds_is_reported_and_dropped_on_request(folder):
    mixture = Mixture.of([setting("a", instruction=("one", "two")), setting("c")], seed=0, root=folder)
    found = mixture.overlap(["A Q3!", "c p1", "nothing like it"], near=0.9)
    assert {name: len(one.rows) for name, one in found.items()} == {"a#1": 0, "a#2": 1, "c": 1}
    left = mixture.without(found)
    assert {name: len(dataset) for name, dataset in left.datasets.items()} == {"a#1": 50, "a#2": 49, "c": 9}
    assert "a q3" not in left.datasets["a#2"]["anchor"][:]
    assert len(mixture.datasets["c"]) == 10
    everything = mixture.overlap([f"c q{n}" for n in range(10)], near=1)
    with pytest.raises(DataError, match="Every pair of the set 'c' shares a text with the evaluation"):
        mixture.without(everything)


def test_the_plan_counts_rows_batches_and_tokens(folder):
    sets = [setting("a", ratio=0.5, instruction=("one", "two")), setting("b"), setting("c", negatives=1)]
    mixture = Mixture.of(sets, seed=0, root=folder)
    model = antiphon.build("nano", "echo")
    counted = plan(mixture, 4, model=model)
    assert [(one.name, one.source_rows, one.rows, one.batches) for one in counted.sets] == [
        ("a", 100, 50, 12),
        ("b", 40, 40, 10),
        ("c", 10, 10, 2),
    ]
    assert counted.batches == 24 == len(list(mixture_sampler(mixture, 4)))
    prompts = mixture.prompts(model)
    for one in counted.sets:
        total = 0
        for part in mixture.parts:
            for column, side in part.sides().items() if part.settings.name == one.name else ():
                for text in part.dataset[column]:
                    features = model.preprocess([text], prompt=prompts[part.name][column], task=side)
                    total += int(features["attention_mask"].sum())
        assert one.tokens_per_row == pytest.approx(total / one.rows)
    weighted = sum(one.batches * one.tokens_per_row for one in counted.sets) / 24 * 4
    assert counted.tokens_per_batch == pytest.approx(weighted)
    without = plan(mixture, 4)
    assert without.tokens_per_batch is None
    assert [one.fingerprint for one in without.sets] == [one.fingerprint for one in counted.sets]
    (folder / "b.jsonl").write_text((folder / "b.jsonl").read_text().replace("b q7", "b q7 changed"))
    changed = plan(Mixture.of(sets, seed=0, root=folder), 4)
    same = [one.fingerprint == other.fingerprint for one, other in zip(changed.sets, without.sets, strict=True)]
    assert same == [True, False, True]


def mixture_sampler(mixture: Mixture, batch_size: int):
    from torch.utils.data import BatchSampler, ConcatDataset

    datasets = list(mixture.datasets.values())
    return mixture.sampling(ConcatDataset(datasets), [BatchSampler(range(9), batch_size, True)] * len(datasets))


BAD = {
    "needs a name without '#'": {"name": "a#1"},
    "has the weight 0": {"weight": 0.0},
    "has the weight nan": {"weight": float("nan")},
    "has the ratio 1.5": {"ratio": 1.5},
    "has cap 0": {"cap": 0},
    "has negatives -1": {"negatives": -1},
    "says symmetric 2 times and has 1": {"instruction": "x", "symmetric": (True, False)},
    "is symmetric, so its documents are queries": {"symmetric": True, "document_instruction": "x"},
}


@pytest.mark.parametrize("message", BAD)
def test_settings_that_cannot_be_used(message):
    with pytest.raises(ConfigError, match=message):
        PairSettings(**{"name": "a", "source": "a.jsonl", **BAD[message]})


def test_sets_that_do_not_go_together(folder):
    with pytest.raises(ConfigError, match="more than one set 'a'"):
        Mixture.of([setting("a"), setting("a")], seed=0, root=folder)
    with pytest.raises(ConfigError, match="has weights, but not for b"):
        Mixture.of([setting("a", weight=1.0), setting("b")], seed=0, root=folder)
    with pytest.raises(ConfigError, match="has no sets"):
        Mixture.of([], seed=0)
    with pytest.raises(DataError, match="has 10 rows for 11 instructions"):
        Mixture.of([setting("c", instruction=tuple("abcdefghijk"))], seed=0, root=folder)


def test_a_mixture_file_is_strict(tmp_path):
    path = tmp_path / "mixture.toml"
    path.write_text('[[set]]\nname = "a"\nsource = "a.jsonl"\nratoi = 0.1\n')
    with pytest.raises(ConfigError, match=r"mixture\.toml.*ratoi is unknown; did you mean 'ratio'"):
        read_settings(path)
    path.write_text('[set]\nname = "a"\n')
    with pytest.raises(ConfigError, match=r"holds `sampled`, \[\[set\]\] tables and nothing else"):
        read_settings(path)
    path.write_text("[[set")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_settings(path)
    with pytest.raises(ConfigError, match="There is no mixture"):
        read_settings(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="cap"):
        settings_of([{"name": "a", "source": "b", "cap": "many"}], "here")


def test_the_echo_mixture_holds_the_fourteen_sets_with_the_ratios_of_the_paper():
    settings = read_settings(ECHO_MIXTURE)
    assert tuple(one.name for one in settings) == ECHO_DATA
    ratios = {one.name: one.ratio for one in settings if one.ratio != 1}
    assert ratios == {
        "eli5_question_answer": 0.1,
        "msmarco_passage": 0.5,
        "msmarco_document": 0.2,
        "quora_duplicates": 0.1,
        "t2ranking": 0.5,
    }
    assert all(one.instructions[0] and not one.required and one.symmetric_documents for one in settings)
    assert {one.name: one.symmetries for one in settings if any(one.symmetries)} == {
        "allnli": (False, True),
        "quora_duplicates": (True, True),
    }


@real_data
def test_the_echo_mixture_on_real_files(caplog):
    mixture = Mixture.of(read_settings(ECHO_MIXTURE), seed=42, root=TRAIN)
    assert "8 sets of the mixture are not there and left out: dureader" in caplog.text
    counted = {one.name: (one.source_rows, one.rows) for one in plan(mixture, 32).sets}
    assert counted == {
        "allnli": (2914, 2914),
        "fever": (354, 354),
        "hotpot_qa": (794, 794),
        "nq": (1900, 1900),
        "quora_duplicates": (3768, 3768),
        "squad": (9000, 9000),
    }
    full = Mixture.of(read_settings(ECHO_MIXTURE, sampled=False), seed=42, root=TRAIN)
    assert {one.name: one.rows for one in plan(full, 32).sets}["quora_duplicates"] == 377


def made_echo_data(folder: Path, rows: int) -> Path:
    """Write the fourteen files of the released echo-data's layout."""
    for name in ECHO_DATA:
        lines = [{"query": f"{name} {n}?", "positive": f"{name} {n}!", "negative": f"{name} {n}."} for n in range(rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_plan_of_the_released_layout_keeps_every_row_and_says_so(tmp_path, capsys):
    recipe = {
        "name": "layout",
        "model": {"base": "nano", "template": "classical", "max_tokens": 64},
        "data": {"mixture": str(ECHO_MIXTURE), "root": str(made_echo_data(tmp_path, 200))},
        "stage": [{"name": "one", "loss": "contrastive", "steps": 1, "batch_size": 10}],
    }
    released = training.plan(read(recipe))
    assert sum(one.rows for one in released.stages[0].sets) == 2800
    plan_lines.plan(released)
    assert "0.1 sampled before" in (told := capsys.readouterr().out)
    assert "no ratio is applied" in told
    full = training.plan(read(recipe, overrides={"data.sampled": False}))
    assert {one.name: one.rows for one in full.stages[0].sets if one.rows != 200} == {
        "eli5_question_answer": 20, "msmarco_passage": 100, "msmarco_document": 40, "quora_duplicates": 20,
        "t2ranking": 100,
    }  # fmt: skip
    plan_lines.plan(full)
    assert "0.1 applied" in (told := capsys.readouterr().out)
    assert "sampled before" not in told


def test_one_set_of_a_sampled_mixture_can_say_otherwise(tmp_path, folder):
    file = tmp_path / "mixture.toml"
    sets = '[[set]]\nname = "{0}"\nsource = "{0}.jsonl"\nratio = 0.1\n{1}\n'
    file.write_text("sampled = true\n" + sets.format("a", "sampled = false") + sets.format("b", ""))
    mixture = Mixture.of(read_settings(file), seed=0, root=folder)
    assert {name: len(rows) for name, rows in mixture.datasets.items()} == {"a": 10, "b": 40}
    file.write_text('sampled = "no"\n' + sets.format("a", ""))
    with pytest.raises(ConfigError, match="sampled is 'no'; take true or false"):
        read_settings(file)
