"""Portable folders under the rules of their readers: what each acts upon is not there or says the right thing."""

from __future__ import annotations

import json

import pytest
from conftest import make_base
from sentence_transformers.base.modules import Dense
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import antiphon
from antiphon.cli import main
from antiphon.exporting import stock_files
from antiphon.model.parity import unlike_texts
from antiphon.model.prompts import prompt_of

pytestmark = pytest.mark.usefixtures("warm_checks")

CHAT = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
LONG = "a word and another " * 300


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A base with a chat template, as most published ones have."""
    folder = make_base(tmp_path_factory.mktemp("bases") / "chatty", "llama", "byte-level")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    assert (folder / "chat_template.jinja").exists()
    return folder


@pytest.fixture(scope="module")
def model(chatty):
    return antiphon.build(chatty, "echo-rewrite", pooling="last", prompts={"query": ""}, max_tokens=64)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return antiphon.export(model, to="portable", out=tmp_path_factory.mktemp("out") / "served")


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_old_transformers_make_no_type_ids(exported):
    """transformers 4 takes the names from tokenizer_config.json and hands all of them to the decoder."""
    for folder in set(exported.prompts.values()):
        names = read(folder, "tokenizer_config.json")["model_input_names"]
        assert names == ["input_ids", "attention_mask"]
        assert set(PreTrainedTokenizerFast.from_pretrained(folder)("a text")) == set(names)


def test_no_engine_finds_a_chat_template(exported):
    """vLLM's /v2/embed renders a chat where the folder has a template for one."""
    for folder in set(exported.prompts.values()):
        assert not list(folder.rglob("*.jinja"))
        assert "chat_template" not in read(folder, "tokenizer_config.json")
        assert not AutoTokenizer.from_pretrained(folder).chat_template


def test_the_length_that_vllm_is_told_is_that_of_the_longest_sequence(exported, model):
    """vLLM counts behind the tokenizer, and goes above sentence-transformers' length only up to config.json's."""
    for name, folder in exported.prompts.items():
        side = "document" if name == "document" else "query"
        features = model.preprocess([LONG], prompt=prompt_of(model, side), task=side)
        longest = int(features["attention_mask"].sum())
        assert len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(LONG).ids) == longest
        assert read(folder, "config.json")["model_max_length"] == longest
        card = (folder / "README.md").read_text()
        assert f"--max-model-len {longest}\n" in card
        assert "do not let it cut (`truncate_prompt_tokens`, `truncate`)" in card
        assert longest > read(folder, "sentence_bert_config.json")["max_seq_length"]
    assert exported.longest == max(
        read(folder, "config.json")["model_max_length"] for folder in exported.prompts.values()
    )


def test_the_command_line_says_the_length(chatty, tmp_path, capsys):
    arguments = ["--template", "echo-rewrite", "--pooling", "last", "--max-tokens", "64"]
    with pytest.raises(SystemExit) as end:
        main(["export", str(chatty), "--to", "portable", "--out", str(tmp_path / "served"), *arguments])
    assert end.value.code in (None, 0)
    longest = read(tmp_path / "served", "config.json")["model_max_length"]
    assert f"engine     vllm serve --max-model-len {longest}\n" in capsys.readouterr().out


def test_cards_say_what_reads_them(exported, model, tiny_base, tmp_path):
    for folder in set(exported.prompts.values()):
        text = (folder / "README.md").read_text()
        assert "Needs sentence-transformers 3.4 or newer" in text
        assert "take white space off both ends" in text
        assert 'Not for `SentenceTransformer(..., backend="openvino")`' in text
        assert "trust_remote_code" not in text
    antiphon.export(model, to="hub", out=tmp_path / "hub")
    assert "Needs sentence-transformers 6.0 or newer.\n" in (tmp_path / "hub" / "README.md").read_text()
    antiphon.export(antiphon.build(tiny_base, "echo", max_tokens=64), to="hub", out=tmp_path / "own")
    text = (tmp_path / "own" / "README.md").read_text()
    assert "Needs sentence-transformers 6.0 or newer. Not for vLLM" in text
    assert "trust_remote_code=True" in text


def test_a_prefix_keeps_its_prompts_and_its_card(chatty, tmp_path):
    model = antiphon.build(chatty, "classical", pooling="last", prompts={"query": "Find it"}, max_tokens=64)
    done = antiphon.export(model, to="portable", out=tmp_path / "served")
    assert done.longest == 64
    assert "--max-model-len 64\n" in (tmp_path / "served" / "README.md").read_text()
    frozen = antiphon.export(model, to="portable", out=tmp_path / "frozen", freeze_prompts=True)
    assert "read as query, without a prompt" in (frozen.prompts["query"] / "README.md").read_text()


def test_older_sentence_transformers_know_every_setting_of_a_dense(tiny_base, tmp_path):
    """Releases 3 to 5 hand the whole config.json to Dense, which takes four settings there."""
    model = antiphon.calibrate(antiphon.build(tiny_base, "classical", pooling="last", max_tokens=64), unlike_texts())
    stock_files.write_folder(
        model, tmp_path / "out", model.tokenizer, mode="lasttoken", prompts={}, dimensions=(), weights=None
    )
    settings = read(tmp_path / "out" / "2_Dense", "config.json")
    assert set(settings) == {"in_features", "out_features", "bias", "activation_function"}
    loaded = Dense.load(str(tmp_path / "out" / "2_Dense"))
    assert (loaded.module_input_name, loaded.module_output_name) == ("sentence_embedding", "sentence_embedding")
