"""Exports: what is written, what is refused, that nothing is left of a failure; the readers' own rules, restated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from tokenizers import Tokenizer

import antiphon
from antiphon.cli import main
from antiphon.errors import CheckpointError, ConfigError, ModelError, ParityError
from antiphon.exporting import hub, verified
from antiphon.exporting import portable as portable_form
from antiphon.exporting.bundle import source
from antiphon.exporting.readings import freeze, readings
from antiphon.exporting.verified import PLAIN, Call, FormSettings, ask
from antiphon.model.adapters import Lora, attach, is_adapted
from antiphon.model.parity import compare, encode, unlike_texts
from antiphon.training.model_card import card
from antiphon.training.record import RunRecord, StageRecord, write

pytestmark = pytest.mark.usefixtures("warm_checks")

PROMPT = "Given a question, find the answer"


# --- what other engines demand of a folder, restated from their sources


def read_as_tei(folder: Path) -> tuple[str, int]:
    """text-embeddings-inference: serde structs; a missing or null field without a default is a start-up error."""
    config = json.loads((folder / "config.json").read_text())
    assert isinstance(config["architectures"], list)
    assert isinstance(config["model_type"], str)
    assert config["max_position_embeddings"] > 0
    assert isinstance(config.get("pad_token_id", 0), int)
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    # the first two are mandatory; versions that know no last token demand the others as well
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"]
    flags = {name: pooling[f"pooling_mode_{name}"] for name in names}
    assert all(isinstance(flag, bool) for flag in flags.values())
    mode = next(name for name in ("cls_token", "mean_tokens", "lasttoken") if flags[name])
    length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    assert isinstance(length, int)
    assert length > 0
    Tokenizer.from_file(str(folder / "tokenizer.json"))
    return mode, length


TEI_MODES = {"cls_token": "CLS", "mean_tokens": "MEAN", "lasttoken": "LAST"}
VLLM_POOLINGS = ("sentence_transformers.models.Pooling", "sentence_transformers.sentence_transformer.modules.Pooling")
VLLM_NORMALIZES = (
    "sentence_transformers.models.Normalize",
    "sentence_transformers.sentence_transformer.modules.Normalize",
)
VLLM_ARCHITECTURES = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"}


def read_as_vllm(folder: Path, *, old: bool) -> tuple[str | None, bool, int | None]:
    """vLLM: pooling, normalisation, length; before it knew `pooling_mode` only flags that are true counted."""
    modules = json.loads((folder / "modules.json").read_text())
    pooling = next((module for module in modules if module["type"] in VLLM_POOLINGS[: 1 if old else 2]), None)
    normalize = any(module["type"] in VLLM_NORMALIZES for module in modules)
    kind = None
    if pooling is not None:
        content = json.loads((folder / pooling["path"] / "config.json").read_text())
        for key, value in content.items():
            name = value if key == "pooling_mode" and isinstance(value, str) and not old else key
            if value is not True and name == key:
                continue
            name = name.replace("pooling_mode_", "").split("_", 1)[0]
            name = "LAST" if "lasttoken" in name else name.upper()
            kind = name if name in ("CLS", "LAST", "MEAN") else kind
    lengths = json.loads((folder / "sentence_bert_config.json").read_text())
    known = "max_seq_length" in lengths and (not old or "do_lower_case" in lengths)
    return kind, normalize, lengths["max_seq_length"] if known else None


def accepted(folder: Path, kind: str, length: int) -> None:
    assert read_as_tei(folder) == (next(key for key, value in TEI_MODES.items() if value == kind), length)
    for old in (True, False):
        assert read_as_vllm(folder, old=old) == (kind, True, length)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"][0] in VLLM_ARCHITECTURES
    assert config["torch_dtype"] == config["dtype"]
    raw = json.loads((folder / "tokenizer.json").read_text())
    assert raw["truncation"]["max_length"] == length
    assert raw["padding"]["strategy"] == "BatchLongest"
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == length


# --- models


def echo(base, **given):
    return antiphon.build(base, "echo", max_tokens=200, dtype="float32", prompts={"query": PROMPT}, **given)


@pytest.fixture(scope="module")
def rewrite(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=200, dtype="float32")


@pytest.fixture(scope="module")
def portable(rewrite, tmp_path_factory):
    return antiphon.export(rewrite, to="portable", out=tmp_path_factory.mktemp("portable") / "out")


def written(model, folder, **settings):
    """The files alone, without the check in another process, by prompt; checked here."""
    calls = portable_form.write(model, folder, FormSettings(**settings))
    for name, call in calls.items():
        side = "document" if name == "document" else "query"
        loaded = SentenceTransformer(str(call.folder))
        assert compare(encode(model, unlike_texts(), side=side), encode(loaded, unlike_texts(), side=side)).equal
    return {name: call.folder for name, call in calls.items()}


def foreign(base, *, mode="lasttoken", prompts=None, side="right", **kind):
    """A stock sentence-transformers model, as others publish them."""
    module = Transformer(str(base))
    module.tokenizer.pad_token = "</s>"
    module.tokenizer.padding_side = side
    width = module.get_embedding_dimension()
    return SentenceTransformer(modules=[module, Pooling(width, pooling_mode=mode, **kind)], prompts=prompts)


# --- portable


def test_a_plain_save_is_refused_by_the_readers_and_the_export_is_not(rewrite, portable, tmp_path):
    folder = antiphon.save(rewrite, tmp_path / "plain")
    with pytest.raises((KeyError, AssertionError)):  # no flags, no length, and a null where a number must be
        read_as_tei(folder)
    assert read_as_vllm(folder, old=True) == (None, False, None)
    accepted(portable.folder, "LAST", 200)


def test_echo_in_a_process_without_antiphon_and_the_controls_that_must_fail(rewrite, portable, tmp_path):
    texts = [*unlike_texts(), "  spaces first", "</s> typed by a user"]
    want = encode(rewrite, texts)
    calls = {"right": Call(portable.folder)}
    for name, spoil in {"eos": without_eos, "pooling": with_mean}.items():
        spoiled = shutil.copytree(portable.folder, tmp_path / name)
        spoil(spoiled)
        calls[name] = Call(spoiled)
    got = ask(PLAIN, calls, texts)
    assert compare(want, got["right"]).equal
    assert np.allclose(np.linalg.norm(got["right"], axis=1), 1.0, atol=1e-5)
    assert not compare(want, got["eos"]).equal
    assert not compare(want, got["pooling"]).equal
    got["right"][[3, 4]] = got["right"][[4, 3]]
    assert not compare(want, got["right"]).equal


def without_eos(folder):
    edit(folder / "tokenizer.json", lambda raw: raw["post_processor"]["single"].pop())


def with_mean(folder):
    edit(folder / "1_Pooling" / "config.json", lambda raw: raw.update(pooling_mode="mean"))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_sides_have_a_folder_each_and_share_their_weights(tiny_base, tmp_path):
    folders = written(echo(tiny_base, pooling="last"), tmp_path, dimensions=(8, 16))
    assert set(folders) == {"query", "document"}
    for folder in folders.values():
        accepted(folder, "LAST", 200)
        assert not any(SentenceTransformer(str(folder)).prompts.values())
        config = json.loads((folder / "config.json").read_text())
        assert config["matryoshka_dimensions"] == [8, 16]
        assert config["rope_theta"] == 10000.0  # transformers 4 knows no rope_parameters
    assert len({(folder / "model.safetensors").stat().st_ino for folder in folders.values()}) == 1


def test_classes_and_keys_are_those_that_old_versions_know(portable):
    modules = json.loads((portable.folder / "modules.json").read_text())
    kinds = ["Transformer", "Pooling", "Normalize"]
    assert [module["type"] for module in modules] == [f"sentence_transformers.models.{kind}" for kind in kinds]
    # sentence-transformers 3 hands these to constructors as they are
    lengths = json.loads((portable.folder / "sentence_bert_config.json").read_text())
    assert lengths.keys() == {"max_seq_length", "do_lower_case"}
    pooling = json.loads((portable.folder / "1_Pooling" / "config.json").read_text())
    assert "word_embedding_dimension" in pooling
    assert "embedding_dimension" not in pooling
    tokenizer = json.loads((portable.folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not list(portable.folder.glob("antiphon.json"))


def test_prefix_prompts_stay_prompts_or_are_frozen_when_asked(tiny_base, tmp_path):
    prompts = {"query": PROMPT}
    model = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=200, dtype="float32", prompts=prompts)
    kept = written(model, tmp_path / "kept")
    assert set(kept.values()) == {tmp_path / "kept"}
    assert SentenceTransformer(str(tmp_path / "kept")).prompts == model.prompts
    for folder in written(model, tmp_path / "frozen", freeze_prompts=True).values():
        accepted(folder, "LAST", 200)
        assert not any(SentenceTransformer(str(folder)).prompts.values())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda base: echo(base), 'pooling \'mean\' over a part of the tokens.*pooling="last".*"hub" or "onnx"'),
        (lambda base: antiphon.build(base, "classical-write"), "over a part of the tokens"),
        (lambda base: foreign(base, mode="weightedmean"), "'weightedmean', which servers do not know"),
        (lambda base: foreign(base, mode="mean", include_prompt=False), "leaves the prompt out"),
    ],
)
def test_what_stock_files_cannot_say_is_refused_with_the_way_out(tiny_base, tmp_path, make, sentence):
    with pytest.raises(ModelError, match=sentence):
        antiphon.export(make(tiny_base), to="portable", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_adapters_are_merged_into_the_export_and_stay_on_the_model(tiny_base, tmp_path):
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=200, dtype="float32")
    plain = encode(model, unlike_texts())
    attach(model, Lora(rank=2, dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    adapted = encode(model, unlike_texts())
    exported = antiphon.export(model, to="portable", out=tmp_path / "out")
    assert is_adapted(model)
    loaded = SentenceTransformer(str(exported.folder))
    assert compare(adapted, loaded.encode(unlike_texts())).equal
    assert not compare(plain, adapted).equal


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gemma3"])
def test_bidirectional_models_keep_their_attention(bases, architecture, tmp_path):
    model = antiphon.build(
        bases[architecture], "eol", pooling="last", max_tokens=200, dtype="float32", bidirectional=True
    )
    config = json.loads((written(model, tmp_path / "out")["query"] / "config.json").read_text())
    assert config["is_causal"] is False
    assert config["use_bidirectional_attention"] is True


def test_a_bidirectional_window_that_engines_would_halve_is_refused(bases, tmp_path):
    model = antiphon.build(bases["gemma3"], "eol", pooling="last", max_tokens=200, dtype="float32", bidirectional=True)
    model[0].model.config.sliding_window = 300
    with pytest.raises(ModelError, match=r"halve the sliding window.*lower max_seq_length to 150"):
        antiphon.export(model, to="portable", out=tmp_path / "out")


def test_foreign_models_export_as_they_are(bases, tmp_path):
    """Shaped like Qwen3-Embedding: no BOS, padded on the left, a prefix without a space, a Dense and a Normalize."""
    prompts = {"query": "Instruct: find it\nQuery:", "document": ""}
    model = foreign(bases["qwen3"], prompts=prompts, side="left")
    model.append(Dense(32, 16, bias=False))
    model.append(Normalize())
    model.max_seq_length = 200
    query = written(model, tmp_path / "out", freeze_prompts=True)["query"]
    accepted(query, "LAST", 200)
    raw = json.loads((query / "tokenizer.json").read_text())
    assert raw["padding"]["direction"] == "Left"
    modules = json.loads((query / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Dense", "3_Normalize"]


def test_a_folder_is_exported_from_its_path_and_a_base_by_its_name(rewrite, tmp_path):
    folder = antiphon.save(rewrite, tmp_path / "saved")
    exported = antiphon.export(str(folder), to="portable", out=tmp_path / "out")
    assert compare(
        encode(rewrite, unlike_texts()), SentenceTransformer(str(exported.folder)).encode(unlike_texts())
    ).equal
    assert antiphon.load(exported.folder).max_seq_length == 200
    assert oct((exported.folder / "model.safetensors").stat().st_mode)[-3:] == "644"


# --- refusals and failures


def test_nothing_is_overwritten_and_settings_are_checked(rewrite, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        antiphon.export(rewrite, to="portable", out=tmp_path)
    with pytest.raises(ConfigError, match="no form 'ggml'; take one of portable, hub, onnx, onnx-int8"):
        antiphon.export(rewrite, to="ggml", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="32 dimensions cannot be cut to 64"):
        antiphon.export(rewrite, to="portable", out=tmp_path / "out", dimensions=[64])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_gives_other_vectors_is_not_left_behind(rewrite, tmp_path, monkeypatch):
    """The target's process is given a folder that lost its EOS: the check must see it, and the folder must go."""
    run = subprocess.run

    def spoiled(command, **options):
        (call,) = json.loads(Path(command[-1]).read_text())["calls"].values()
        without_eos(Path(call["folder"]))
        return run(command, **options)

    monkeypatch.setattr(verified.subprocess, "run", spoiled)
    with pytest.raises(ParityError, match=r"does not give the model's vectors.*so nothing was written"):
        antiphon.export(rewrite, to="portable", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_run_says_why(tmp_path):
    with pytest.raises(ParityError, match="could not be run in a process of its own"):
        ask(PLAIN, {"query": Call(tmp_path)}, ["a"])


def test_a_tokenizer_that_cannot_hold_a_template_is_told(tiny_base):
    """One copy owns a space before it and the other does not: a normalizer is for both or for none."""
    template = "{text} again: [{text}]"
    model = antiphon.build(tiny_base, template, max_tokens=200, dtype="float32")
    (reading,) = readings(model)
    with pytest.raises(ModelError, match="cannot hold the query prompt exactly"):
        freeze(model, reading)


# --- hub


@pytest.fixture(scope="module")
def published(tiny_base, tmp_path_factory):
    model = echo(tiny_base)
    return model, antiphon.export(model, to="hub", out=tmp_path_factory.mktemp("hub") / "out")


def test_a_published_folder_carries_its_own_code_and_needs_the_flag(published):
    model, exported = published
    assert (exported.folder / "modeling_antiphon.py").exists()
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(exported.folder))
    own = antiphon.load(exported.folder)  # the installed classes, not the folder's
    assert type(own[0]).__module__ == "antiphon.modules"
    for side in ("query", "document"):
        assert compare(encode(model, unlike_texts(), side=side), encode(own, unlike_texts(), side=side)).equal


def test_its_code_hears_a_prompt_that_is_given_later(published):
    model, exported = published
    calls = {"other": Call(exported.folder, method="encode_query", prompt="Another task", trust=True)}
    texts = unlike_texts()
    assert compare(model.encode_query(texts, prompt="Another task"), ask(PLAIN, calls, texts)["other"]).equal


def test_the_module_file_imports_nothing_of_ours_and_names_nothing_twice(monkeypatch):
    text = source()
    assert "from antiphon" not in text
    assert "import antiphon" not in text
    names = [
        line.split("(")[0].split()[1].rstrip(":") for line in text.splitlines() if line.startswith(("def ", "class "))
    ]
    assert len(names) == len(set(names))
    home = types.ModuleType("carried")
    monkeypatch.setitem(sys.modules, "carried", home)
    monkeypatch.setitem(sys.modules, "antiphon", None)
    exec(compile(text, "carried", "exec"), home.__dict__)
    assert home.TemplateInput.__module__ == "carried"


def test_the_card_says_what_the_model_is_where_it_came_from_and_what_is_not_known(published, tmp_path):
    model, exported = published
    text = (exported.folder / "README.md").read_text()
    for part in (
        "Template: `echo`; pooling: mean",
        "trust_remote_code=True",
        PROMPT,
        "licence: look it up",
        "None is recorded",
    ):
        assert part in text
    assert str(exported.folder.parent) not in text
    assert "license: apache-2.0" in card(antiphon.build("nano", max_tokens=64), "", [])
    licensed = tmp_path / "base"
    shutil.copytree(Path(model[0].config._name_or_path), licensed)
    (licensed / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# base\n")
    model = antiphon.build(licensed, max_tokens=64)
    assert "\nlicense: mit\n" in card(model, "", [])


def test_the_card_of_a_trained_model_tells_its_stages_results_and_recipe(rewrite, tmp_path):
    stage = StageRecord(
        name="contrastive",
        loss="contrastive",
        base="Qwen/Qwen3-0.6B",
        base_fingerprint="0",
        model="contrastive/model",
        fingerprint="1",
        error_against_spread=0.0,
        data=[{"set": "docstrings", "rows": 321}],
        steps=10,
        seconds=90.0,
        best_step=None,
        history=[{"step": 10, "loss": 1.25, "epoch": 0.5}],
    )
    versions = {"torch": "2.13"}
    record = RunRecord(
        name="a-run", recipe={"seed": 7}, seed=7, versions=versions, machine="m", processes=1, stages=[stage]
    )
    write(record, tmp_path)
    text = card(rewrite, str(tmp_path / "contrastive" / "model"), [])
    assert "None is recorded" in text  # there is no such folder
    (tmp_path / "contrastive" / "model").mkdir(parents=True)
    text = card(rewrite, str(tmp_path / "contrastive" / "model"), [])
    for part in (
        "base_model: Qwen/Qwen3-0.6B",
        "docstrings (321 rows) | 10 | 1.5 |",
        "step 10: loss 1.2500",
        '"seed": 7',
    ):
        assert part in text


def test_a_stock_model_is_published_without_code(rewrite, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    hub.write(rewrite, folder, FormSettings())
    assert not (folder / "modeling_antiphon.py").exists()
    assert "trust_remote_code" not in (folder / "README.md").read_text()
    assert compare(encode(rewrite, unlike_texts()), SentenceTransformer(str(folder)).encode(unlike_texts())).equal


# --- the command


def test_the_command_writes_says_where_and_refuses_in_a_sentence(tiny_base, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths are seen from where one stands
    given = ["export", tiny_base, "--max-tokens", "200", "--to", "portable", "--out"]
    assert ended([*given, "a", "--pooling", "last"]) == 0
    assert (tmp_path / "a" / "modules.json").exists()
    out = capsys.readouterr().out
    assert "query      a\n" in out
    assert "parity     equal" in out
    assert ended([*given, "b"]) == 2
    assert "A portable folder cannot say" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def ended(arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0
