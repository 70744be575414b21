"""Folders as an attack: whatever a folder brings along, nothing of it runs, nobody is asked, and a sentence is said."""

from __future__ import annotations

import ast
import builtins
import io
import json
import logging
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig

import antiphon
from antiphon import exporting
from antiphon.cli import main
from antiphon.errors import CheckpointError, ModelError
from antiphon.model import foreign_code
from antiphon.model.adapted import adapt
from antiphon.model.checkpoint import model_folder
from antiphon.model.opening import ModelOptions, open_model

pytestmark = pytest.mark.usefixtures("warm_checks")

SOURCE = Path(antiphon.__file__).parent
SHORT = ModelOptions(max_tokens=64)
Spoil = Callable[[Path], object]


class Runs:
    """What a pickle runs when it is read."""

    def __reduce__(self):
        return (os.mkdir, (os.environ["CANARY"],))


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """A folder that appears as soon as anything of an attacker's runs; standard input says yes to everything."""
    place = tmp_path / "it-ran"
    monkeypatch.setenv("CANARY", str(place))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 50))

    def asked(*prompt: object) -> str:
        place.mkdir(exist_ok=True)
        return "y"

    monkeypatch.setattr(builtins, "input", asked)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(CODE)
    yield place
    assert not place.exists(), "code of the folder ran, or somebody was asked whether it may"


CODE = """
import os
os.makedirs(os.environ["CANARY"], exist_ok=True)
class Config: pass
class Model: pass
class Tokenizer: pass
"""


def with_code(file: str, **changes: object) -> Spoil:
    """Change a file of settings and lay the code that it may name beside it."""

    def spoil(folder: Path) -> None:
        path = folder / file
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**found, **changes}))
        (folder / "evil.py").write_text(CODE)

    return spoil


AUTO = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoModelForCausalLM": "evil.Model"}
TOKENIZER_AUTO = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as out:
        pickle.dump({"model.embed_tokens.weight": Runs()}, out, protocol=2)


def pickled_by_torch(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Runs()}, folder / "pytorch_model.bin")


REFUSED: dict[str, tuple[Spoil, str]] = {
    "a family of its own": (with_code("config.json", model_type="evil", auto_map=AUTO), r"evil\.Config.*does not run"),
    "a family elsewhere": (
        with_code("config.json", model_type="evil", auto_map={"AutoConfig": "who/ever--evil.Config"}),
        r"asks for code of its own \(who/ever--evil\.Config\)",
    ),
    "a tokenizer of its own": (
        with_code("tokenizer_config.json", tokenizer_class="Evil", auto_map=TOKENIZER_AUTO),
        r"auto_map|custom code|code of its own",
    ),
    "kernels": (with_code("config.json", attn_implementation="who/kernel"), r"'who/kernel', a repository whose code"),
    "kernels, another name": (with_code("config.json", _attn_implementation="who/kernel:evil"), r"a repository whose"),
    "kernels for experts": (with_code("config.json", experts_implementation="who/kernel"), r"experts_implementation"),
    "kernels for a part": (with_code("config.json", attn_implementation={"text": "who/kernel"}), r"'who/kernel'"),
    "kernels within": (with_code("config.json", text_config={"_attn_implementation": "who/kernel"}), r"'who/kernel'"),
    "a processor": (with_code("processor_config.json", auto_map={"AutoProcessor": "evil.Model"}), r"evil\.Model"),
    "a feature extractor": (
        with_code("preprocessor_config.json", auto_map={"AutoFeatureExtractor": "evil.Model"}),
        r"preprocessor_config\.json of .* asks for code of its own",
    ),
    "a pickle": (pickled, r"holds more than weights|cut short"),
    "a pickle by torch": (pickled_by_torch, r"holds more than weights|cut short"),
}
PASSED_OVER: dict[str, Spoil] = {
    "a known family": with_code("config.json", auto_map=AUTO),
    "a known tokenizer": with_code("tokenizer_config.json", auto_map=TOKENIZER_AUTO),
    "the old shape of a tokenizer's": with_code("tokenizer_config.json", auto_map=["evil.Tokenizer", None]),
    "a generation": with_code("generation_config.json", auto_map=AUTO),
}


@pytest.fixture(scope="module")
def saved(tiny_base, tmp_path_factory):
    model = antiphon.build(tiny_base, "echo", max_tokens=64)
    return antiphon.save(model, tmp_path_factory.mktemp("good") / "saved")


@pytest.mark.parametrize("name", REFUSED)
def test_a_base_that_brings_code_is_refused(name, tiny_base, tmp_path):
    spoil, sentence = REFUSED[name]
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    spoil(folder)
    with pytest.raises(ModelError, match=sentence) as refused:
        open_model(str(folder), SHORT)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", REFUSED)
def test_a_saved_folder_that_brings_code_is_refused(name, saved, tmp_path):
    spoil, sentence = REFUSED[name]
    folder = shutil.copytree(saved, tmp_path / "saved")
    spoil(folder)
    with pytest.raises(ModelError, match=sentence):
        open_model(str(folder))


@pytest.mark.parametrize("name", PASSED_OVER)
def test_code_beside_a_class_of_transformers_is_passed_over_and_said(name, tiny_base, saved, tmp_path, caplog):
    for number, (original, shape) in enumerate(((tiny_base, SHORT), (saved, None))):
        folder = shutil.copytree(original, tmp_path / f"copy-{number}")
        PASSED_OVER[name](folder)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "antiphon"):
            found = open_model(str(folder), shape).encode(["one text", "another"])
        assert np.allclose(found, open_model(str(original), shape).encode(["one text", "another"]), atol=1e-6)
        assert "it is not run, and transformers' own class reads the folder" in caplog.text


def test_the_command_line_does_not_read_consent_from_its_input(tiny_base, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    REFUSED["a tokenizer of its own"][0](folder)
    with pytest.raises(SystemExit) as end:
        main(["embed", str(folder), "-", "--max-tokens", "64", "--out", str(tmp_path / "vectors")])
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


MODULES: dict[str, tuple[dict[str, object], str]] = {
    "a class of the folder": ({"type": "evil.Pooling"}, r"wants the class evil\.Pooling"),
    "a class of Python": ({"type": "os.system"}, r"wants the class os\.system"),
    "a class of another package": ({"type": "transformers.AutoModel"}, r"wants the class transformers\.AutoModel"),
    "ours by a wrong name": ({"type": "antiphon.modules.torch"}, r"wants the class antiphon\.modules\.torch"),
    "nearly stock": ({"type": "sentence_transformersX.Pooling"}, r"wants the class"),
    "one that imports": ({"type": "sentence_transformers.models.WordEmbeddings"}, r"name classes to import"),
    "one that holds others": ({"type": "sentence_transformers.models.Router"}, r"name classes to import"),
    "no name": ({"type": 7}, r"which is no module"),
    "a place above": ({"path": "../other"}, r"'\.\./other', which leads out of its folder"),
    "a place above, later": ({"path": "1_Pooling/../../other"}, r"leads out of its folder"),
    "a place of the machine": ({"path": "/etc"}, r"'/etc', which leads out of its folder"),
    "a place of Windows": ({"path": "C:\\other"}, r"leads out of its folder"),
    "a place above on Windows": ({"path": "1_Pooling\\..\\..\\other"}, r"leads out of its folder"),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_are_none_of_ours_are_refused(name, saved, tmp_path):
    changes, sentence = MODULES[name]
    folder = shutil.copytree(saved, tmp_path / "saved")
    (folder / "evil.py").write_text(CODE)
    entries = json.loads((folder / "modules.json").read_text())
    entries[1].update(changes)
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match=sentence):
        antiphon.load(folder)


def test_an_activation_of_the_folder_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "saved")
    entries = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*entries, dense]))
    (folder / "2_Dense").mkdir()
    settings = {"in_features": 32, "out_features": 8, "bias": False, "activation_function": "evil.Model"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    torch.save({"linear.weight": torch.ones(8, 32)}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"2_Dense/config\.json of .* wants the activation evil\.Model"):
        antiphon.load(folder)


def test_settings_of_a_module_cannot_ask_for_trust(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "saved")
    trust = {"trust_remote_code": True}
    with_code("sentence_bert_config.json", model_args=trust, config_args=trust, tokenizer_args=trust)(folder)
    with_code("config.json", auto_map=AUTO)(folder)
    assert antiphon.load(folder).encode("one text").shape == (32,)
    with_code("sentence_bert_config.json", model_args={"attn_implementation": "who/kernel"})(folder)
    with pytest.raises(ModelError, match="'who/kernel'"):
        antiphon.load(folder)


def test_a_tampered_copy_of_our_modules_is_not_run(saved, tmp_path):
    folder = tmp_path / "hub"
    exporting.export(antiphon.load(saved), to="hub", out=folder)
    copy = folder / "modeling_antiphon.py"
    assert copy.exists()
    copy.write_text(CODE + copy.read_text())
    texts = ["one text", "another"]
    wanted = antiphon.load(saved).encode(texts, normalize_embeddings=True)
    assert np.allclose(antiphon.load(folder).encode(texts), wanted, atol=1e-6)


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "stage-1/../../elsewhere", "..\\elsewhere"])
def test_the_record_of_a_run_leads_nowhere_else(place, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"checkpoint": place}))
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        model_folder(tmp_path)


def adapter_of(base: Path, folder: Path) -> Path:
    model = antiphon.build(base, "echo", max_tokens=64)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    model[0].model.save_pretrained(folder)
    return folder


def test_an_adapter_that_brings_code_is_refused(tiny_base, tmp_path):
    adapter = adapter_of(tiny_base, tmp_path / "adapter")
    with_code("adapter_config.json", auto_map=AUTO)(adapter)
    model = antiphon.build(tiny_base, "echo", max_tokens=64)
    with pytest.raises(ModelError, match=r"adapter_config\.json of .* asks for code of its own"):
        adapt(model, adapter)
    parent = {"base_model_class": "Model", "parent_library": "evil"}
    plain = adapter_of(tiny_base, tmp_path / "second")
    with_code("adapter_config.json", auto_map=None, auto_mapping=parent)(plain)
    adapt(model, plain)  # the library that it names is not imported: the canary would tell


def test_an_adapter_that_is_a_pickle_is_refused(tiny_base, tmp_path):
    adapter = adapter_of(tiny_base, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"weight": Runs()}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError):
        adapt(antiphon.build(tiny_base, "echo", max_tokens=64), adapter)


def test_an_adapter_over_a_base_that_brings_code_is_refused(tiny_base, saved, tmp_path):
    """A saved folder may hold an adapter only; the base that it names is judged like any other."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    folder = shutil.copytree(saved, tmp_path / "saved")
    adapter_of(base, folder)
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    with_code("config.json", model_type="evil", auto_map=AUTO)(base)
    with pytest.raises(ModelError, match=r"asks for code of its own"):
        antiphon.load(folder)


LOADERS = ("from_pretrained", "from_config")
"""Calls that ask on standard input where they are not told."""


def test_every_call_that_could_ask_is_told_no():
    """No call leaves the question open, whichever folder comes; what loads by hand over modules asks nobody."""
    open_calls = []
    for path in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            reads = name == "SentenceTransformer" and bool(call.args)
            told = {keyword.arg: keyword.value for keyword in call.keywords}
            if (name in LOADERS or reads) and "trust_remote_code" not in told:
                open_calls.append(f"{path.name}:{call.lineno}")
            answer = told.get("trust_remote_code")
            if answer is not None and not (isinstance(answer, ast.Constant) and answer.value is False):
                # the check of an exported folder runs the copy of our modules that was written a moment before
                assert path.name == "plain_encode.py", f"{path.name}:{call.lineno}"
    assert not open_calls


def test_paths_within_a_folder_are_let_through():
    for path in ("", "1_Pooling", "a/b.c", "..hidden", "stage-1/model"):
        foreign_code.check_inside(path, "run.json")
