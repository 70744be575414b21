"""What the published code says, token for token; the final EOS as a setting; clauses that leave no space."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import train_tokenizer, vectors
from oracle import HAND_WRITTEN, Oracle
from published_data import GOLDEN, INSTRUCTIONS, MODELS, golden
from transformers import AutoTokenizer

import antiphon
from antiphon.errors import ConfigError, ModelError
from antiphon.model.opening import ModelOptions, open_model
from antiphon.model.origin import Origin
from antiphon.model.parity import compare, unlike_texts
from antiphon.modules import TemplateInput
from antiphon.text.template import TEMPLATES, Template, named, prompt_for
from antiphon.text.tokens import LengthBudget, PieceTokenizer, sequences

ECHO = {
    "zs-echo-sp": ("echo-rewrite-parser", "query"),
    "zs-classic-sp": ("classical-write-parser", "query"),
    "zs-echo": ("echo-rewrite-readme", "query"),
    "ft-query-sp": ("echo-parser", "query"),
    "ft-doc-sp": ("echo-parser", "document"),
    "ft-query": ("echo-readme", "query"),
    "ft-doc": ("echo-readme", "document"),
}
NO_EOS = {**{name: HAND_WRITTEN[name, "query"] for name in ("eol", "classical")}, "llm2vec": ["BARE"]}
LIMITS = {"sts": 200, "long64": 64}


@golden
@pytest.mark.parametrize("folder", ["english-6m", "stories260K"])
@pytest.mark.parametrize("string", ECHO)
def test_ids_spans_and_vectors_are_those_of_the_authors_parser(folder, string):
    facts = json.loads((GOLDEN / "echo.json").read_text(encoding="utf-8"))
    arrays = np.load(GOLDEN / "echo_vectors.npz")
    name, side = ECHO[string]
    prompt = facts["instruction"] if TEMPLATES[name].takes_instruction(side) else ""
    pieces = PieceTokenizer(AutoTokenizer.from_pretrained(MODELS / folder))
    found: dict[str, list[np.ndarray]] = {"mean": [], "last": []}
    meant: dict[str, list[np.ndarray]] = {"mean": [], "last": []}
    for kind, texts in (("sts", facts["texts"]), ("long64", facts["long_texts"])):
        key = f"{'en6m' if folder == 'english-6m' else 'stories'}|{string}|{kind}"
        most = LengthBudget.of(TEMPLATES[name], pieces, side, 900, prompt=prompt).overhead + LIMITS[kind]
        rows = sequences(texts, TEMPLATES[name], pieces, prompt=prompt, side=side, max_tokens=most)
        wanted = facts["rows"][key]
        assert [row.ids for row in rows] == [one["ids"] for one in wanted]
        assert [list(map(int, row.pooled)) for row in rows] == [one["pooled"] for one in wanted]
        for pooling in ("mean", "last"):
            model = antiphon.build(MODELS / folder, name, pooling=pooling, max_tokens=most, dtype="float32")
            given = prompt_for(model, prompt, side)
            found[pooling].append(model.encode(texts, prompt=given, task=side, show_progress_bar=False))
            meant[pooling].append(arrays[f"{key}|{pooling}"])
    for pooling in ("mean", "last"):
        same = compare(np.concatenate(found[pooling]), np.concatenate(meant[pooling]))
        assert same.error_against_spread < 1e-5


def ids_of(name: str | Template, text: str, tokenizer, *, prompt: str = "", side="query") -> list[int]:
    return sequences([text], named(name), PieceTokenizer(tokenizer), prompt=prompt, side=side, max_tokens=200)[0].ids


@golden
@pytest.mark.parametrize(
    ("file", "key", "name", "folder"),
    [
        ("anchor_stage2.json", "anchor|en6m-l3|causal", "anchor", GOLDEN / "llama3_like"),
        ("llm2vec_supervised.json", "llm2vec|en6m|bi", "llm2vec", MODELS / "english-6m"),
        ("llm2vec_supervised.json", "llm2vec|stories|bi", "llm2vec", MODELS / "stories260K"),
    ],
)
def test_training_rows_are_tokenised_as_anchor_and_llm2vec_do(file, key, name, folder):
    facts = json.loads((GOLDEN / file).read_text(encoding="utf-8"))[key]
    rows = json.loads((GOLDEN / "rows.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = PieceTokenizer(tokenizer)
    for row, wanted in zip(rows, facts["q"]["ids"], strict=True):
        prompt = INSTRUCTIONS[row["set"]]
        assert (
            sequences([row["query"]], TEMPLATES[name], pieces, prompt=prompt, side="query", max_tokens=512)[0].ids
            == wanted
        )
    for column, letter in (("positive", "p"), ("negative", "n")):
        found = sequences(
            [row[column] for row in rows], TEMPLATES[name], pieces, prompt="", side="document", max_tokens=512
        )
        assert [row.ids for row in found] == facts[letter]["ids"]


def test_a_colon_that_ends_the_instruction_takes_the_place_of_the_semicolon():
    tokenizer = train_tokenizer("byte-level")
    told = ids_of("llm2vec", "a cat", tokenizer, prompt="Find the claim:")
    assert tokenizer.decode(told[1:]) == "Find the claim: a cat"
    assert tokenizer.decode(ids_of("llm2vec", "a cat", tokenizer, prompt="Find it")[1:]) == "Find it; a cat"


@pytest.mark.parametrize(
    ("query", "plain"),
    [
        ("Header\n\n{prompt}; {text}", "Header\n\nhi"),
        ("{prompt}; {text}", "hi"),
        ("[INST]{}{prompt}; {text}[/INST]", "[INST]hi[/INST]"),
        ("Read: {}{prompt} {text}", "Read: hi"),
        ("{text} about {prompt} and so on", "hi and so on"),
        ("A\n{prompt} says {text}", "A\nsays hi"),
    ],
)
@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_an_empty_clause_leaves_no_space(query, plain, kind):
    tokenizer = train_tokenizer(kind)
    assert tokenizer.decode(ids_of(Template("one", query), "hi", tokenizer)[1:-1]).lstrip(" ") == plain


def test_a_template_saved_by_0_1_0_keeps_the_space_that_it_had():
    old = {"name": "custom", "query": "A\n{prompt}; {text}", "document": None, "compute_matched": False}
    before, now = Template.from_dict(old), Template("custom", old["query"])
    tokenizer = train_tokenizer("byte-level")
    assert tokenizer.decode(ids_of(before, "hi", tokenizer)[1:-1]) == "A\n hi"
    assert tokenizer.decode(ids_of(now, "hi", tokenizer)[1:-1]) == "A\nhi"
    assert before.to_dict() == old
    assert Template.from_dict(now.to_dict()) == now
    for template in TEMPLATES.values():
        assert Template.from_dict(json.loads(json.dumps(template.to_dict()))) == template
    assert "eos" not in TEMPLATES["echo"].to_dict()


def test_a_saved_eol_folder_says_what_it_said(tiny_base, tmp_path):
    """One of 0.1.0 ends in EOS, one of today in the word's quotation mark; both keep it through save and load."""
    today = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32")
    before = antiphon.build(
        tiny_base, replace(TEMPLATES["eol"], eos=True), pooling="last", max_tokens=64, dtype="float32"
    )
    eos = today.tokenizer.eos_token_id
    for model, ends in ((before, True), (today, False)):
        again = antiphon.load(antiphon.save(model, tmp_path / str(ends)))
        for one in (model, again):
            assert (one.tokenizer("a text")["input_ids"][-1] == eos) is ends
    record = tmp_path / "True" / "antiphon.json"
    assert "eos" not in json.loads(record.read_text())["template"]


@pytest.mark.parametrize(
    ("template", "pooling"), [("eol", "last"), ("eol", "mean"), ("llm2vec", "mean"), ("classical", "last")]
)
def test_without_eos_every_way_gives_the_naive_vectors(template, pooling, tiny_base, tmp_path):
    """Slots, baked and stock folders, the Encoder and a portable export, against the plain model on ids put by hand."""
    model = antiphon.build(tiny_base, template, pooling=pooling, max_tokens=240, eos=False, dtype="float32")
    oracle, texts = Oracle(tiny_base), unlike_texts()

    def naive(text: str) -> np.ndarray:
        ids, pooled = oracle.sequence(NO_EOS[template], text)
        if template != "eol":  # the oracle's EOS goes, and the last token of the text is pooled as before
            ids, pooled = ids[:-1], pooled[:-1]
        return oracle.vector(ids, pooled, pooling)

    wanted = np.stack([naive(text) for text in texts])
    saved = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    for found in (
        vectors(model, texts),
        vectors(saved, texts),
        antiphon.Encoder(model).encode(texts),
    ):
        assert compare(found, wanted).error_against_spread < 1e-4
    assert isinstance(model[0], TemplateInput) is (pooling == "mean")
    long = model.preprocess(["word " * 600])["input_ids"]
    assert long.shape[1] == 240


def test_a_model_without_an_eos_is_built_where_none_is_said(tiny_base, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for file in Path(tiny_base).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"names no EOS token; .* or take a template with eos = false"):
        antiphon.build(folder, "classical", pooling="last", dtype="float32", max_tokens=64)
    model = antiphon.build(folder, "classical", pooling="last", eos=False, dtype="float32", max_tokens=64)
    whole = antiphon.build(tiny_base, "classical", pooling="last", eos=False, dtype="float32", max_tokens=64)
    assert compare(vectors(model, unlike_texts()), vectors(whole, unlike_texts())).equal


@pytest.mark.usefixtures("warm_checks")
def test_a_shape_takes_a_template_of_two_variants(tiny_base, tmp_path):
    spelled = Template("mine", "Q {prompt}; {text}", "D {text}", eos=False)
    model = open_model(tiny_base, ModelOptions(template=spelled, pooling="mean", max_tokens=64, dtype="float32"))
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    assert asdict(again[0].template_spec) == asdict(model[0].template_spec) == asdict(spelled)
    antiphon.export(again, to="hub", out=tmp_path / "hub")
    exported = antiphon.load(tmp_path / "hub")
    assert exported[0].template_spec == spelled


def test_a_template_with_the_space_of_0_1_0_is_opened_again_as_it_was(tiny_base):
    old = Template("custom", "A\n{prompt}; {text}", clause_space=True)
    model = antiphon.build(tiny_base, old, pooling="mean", max_tokens=64, dtype="float32")
    again = Origin.of(model).open()
    assert again[0].template_spec == old
    assert compare(vectors(again, unlike_texts()), vectors(model, unlike_texts())).equal


def test_an_eos_that_nobody_says_is_not_trained(tiny_base):
    from antiphon.model.adapters import Lora, attach

    model = antiphon.build(tiny_base, "llm2vec", dtype="float32", max_tokens=64)
    with pytest.raises(ConfigError, match="train_eos trains the EOS and template 'llm2vec' says none"):
        attach(model, Lora(train_eos=True))
