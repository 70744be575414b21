"""Folders: what they hold, that nothing changes on the way, and what is refused."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers import AutoModelForCausalLM

import antiphon
import antiphon.text.template
from antiphon.errors import CheckpointError, ModelError
from antiphon.model.parity import compare, unlike_texts
from antiphon.modules import TemplateInput
from antiphon.text.tokens import PieceTokenizer

STOCK = [("echo-rewrite", "last"), ("classical", "last"), ("eol", "last"), ("classical-write", "last")]
OURS = [("echo-rewrite", "mean"), ("echo", "last"), ("echo", "weighted_mean"), ("classical", "mean"), ("chat", "last")]
CHAT = "{% for m in messages %}<s>Be brief.</s><s>user: {{ m.content }}{{ eos_token }}{% endfor %}"


def built(base, template, pooling, **options):
    if template == "chat":
        config = json.loads((base / "tokenizer_config.json").read_text())
        (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": CHAT}))
    return antiphon.build(base, template, pooling=pooling, max_tokens=160, dtype="float32", **options)


@pytest.mark.parametrize(("template", "pooling"), STOCK + OURS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_reload_changes_neither_vectors_nor_what_a_prompt_means(
    template, pooling, bidirectional, tiny_base, tmp_path
):
    model = built(tiny_base, template, pooling, bidirectional=bidirectional)
    assert type(model[0]) is (Transformer if (template, pooling) in STOCK else TemplateInput)
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    assert type(again[0]) is type(model[0])
    assert again.prompts == model.prompts
    assert again.max_seq_length == model.max_seq_length
    texts = [*unlike_texts(), "", "  two spaces", "a\n  b", "typed </s>", "long " * 400, "=" * 20_000]
    for encode in ("encode", "encode_query", "encode_document"):
        assert compare(getattr(again, encode)(texts), getattr(model, encode)(texts)).error_against_spread < 1e-6
    if template in ("echo", "classical", "chat"):
        prompt = antiphon.text.template.prompt_for(model, "Find the answer", "query")
        assert prompt == antiphon.text.template.prompt_for(again, "Find the answer", "query")
        want = model.encode_query(texts, prompt=prompt)
        assert compare(again.encode_query(texts, prompt=prompt), want).error_against_spread < 1e-6
        assert not compare(want, model.encode_query(texts)).equal


LOADER = """
import json, sys
sys.modules["antiphon"] = None  # importing it fails
import numpy as np
from sentence_transformers import SentenceTransformer
texts = json.loads(sys.argv[1])
for folder in sys.argv[2:]:
    model = SentenceTransformer(folder)
    np.save(folder + "/out.npy", np.stack([model.encode(texts), model.encode_document(texts)]))
"""


@pytest.fixture(scope="module")
def loaded_elsewhere(tiny_base, tmp_path_factory, programs) -> dict[tuple[str, str], Path]:
    """Every stock model saved, and what one process that cannot import antiphon made of the texts with it."""
    root = tmp_path_factory.mktemp("stock")
    folders = {cell: antiphon.save(built(tiny_base, *cell), root / "-".join(cell)) for cell in STOCK}
    command = [str(programs / "python"), "-c", LOADER, json.dumps(unlike_texts()), *map(str, folders.values())]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(("template", "pooling"), STOCK)
def test_plain_sentence_transformers_gives_the_same_where_antiphon_cannot_be_imported(
    template, pooling, tiny_base, loaded_elsewhere
):
    model = built(tiny_base, template, pooling)
    texts = unlike_texts()
    queries, documents = np.load(loaded_elsewhere[template, pooling] / "out.npy")
    assert compare(queries, model.encode(texts)).equal
    assert compare(documents, model.encode_document(texts)).equal
    assert not compare(queries[[1, 0, *range(2, len(queries))]], model.encode(texts)).equal


def test_ours_needs_the_flag_in_plain_sentence_transformers_and_none_here(tiny_base, tmp_path):
    folder = antiphon.save(built(tiny_base, "echo", "mean"), tmp_path / "saved")
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(folder))
    assert isinstance(antiphon.load(folder)[0], TemplateInput)


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_of_the_language_model_survives(tied, tmp_path):
    from conftest import make_base

    base = make_base(tmp_path / "base", tie_word_embeddings=tied)
    first = antiphon.save(built(base, "echo", "mean"), tmp_path / "first")
    second = antiphon.save(antiphon.load(first), tmp_path / "second")
    want = AutoModelForCausalLM.from_pretrained(base)
    got = AutoModelForCausalLM.from_pretrained(second)
    ids = torch.arange(20)[None]
    assert torch.equal(want(ids).logits, got(ids).logits)
    assert json.loads((second / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert ("lm_head.weight" in load_file(second / "model.safetensors")) is not tied


def test_a_head_that_was_trained_is_the_one_that_is_saved(tiny_base, tmp_path):
    from antiphon.training.losses.head import head_of

    model = built(tiny_base, "echo", "last")
    weight = head_of(model).weight
    with torch.no_grad():
        weight += 1.0
    folder = antiphon.save(model, tmp_path / "saved")
    assert torch.equal(load_file(folder / "model.safetensors")["lm_head.weight"], weight)


def test_pieces_of_a_tokenizer_with_the_template_inside_are_still_pieces(tiny_base):
    baked, plain = (built(tiny_base, "echo-rewrite", pooling)[0].tokenizer for pooling in ("last", "mean"))
    assert PieceTokenizer(baked).frame("one two", first=True) == PieceTokenizer(plain).frame(" one two", first=True)


def test_half_precision_weights_stay_half(tiny_base, tmp_path):
    folder = antiphon.save(antiphon.build(tiny_base, "echo", dtype="bfloat16", max_tokens=64), tmp_path / "saved")
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        assert {str(tensors.get_tensor(name).dtype) for name in tensors.keys()} == {"torch.bfloat16"}  # noqa: SIM118
    assert antiphon.load(folder).dtype == torch.bfloat16


def test_foreign_code_is_not_loaded(tiny_base, tmp_path):
    folder = antiphon.save(built(tiny_base, "echo", "mean"), tmp_path / "saved")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "evil.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"wants the class evil\.Pooling"):
        antiphon.load(folder)


def test_a_tokenizer_that_loses_its_eos_is_refused(tiny_base, tmp_path):
    folder = antiphon.save(built(tiny_base, "echo-rewrite", "last"), tmp_path / "saved")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["post_processor"]["single"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="loses BOS or EOS on a short text"):
        antiphon.load(folder)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "modules.json").unlink(), r"no modules\.json"),
        (lambda folder: (folder / "modules.json").write_text("{"), "not a list of modules"),
        (lambda folder: (folder / "antiphon.json").write_text("[1]"), "not a record of antiphon"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
    ],
)
def test_a_broken_folder_says_what_is_broken(spoil, sentence, tiny_base, tmp_path):
    folder = antiphon.save(built(tiny_base, "echo", "mean"), tmp_path / "saved")
    spoil(folder)
    with pytest.raises(CheckpointError, match=sentence):
        antiphon.load(folder)


def test_nothing_of_the_users_is_overwritten(tiny_base, tmp_path):
    model = built(tiny_base, "echo", "mean")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        antiphon.save(model, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    antiphon.save(model, tmp_path / "empty")


class FullDisk(torch.nn.Module):
    """A module whose save meets a full disk."""

    def forward(self, features):
        return features

    def save(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_nothing_half_written(tiny_base, tmp_path):
    model = built(tiny_base, "echo", "mean")
    model.add_module("2", FullDisk())
    with pytest.raises(CheckpointError, match=r"nothing was left there: .*No space left on device"):
        antiphon.save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
