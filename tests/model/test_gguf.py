"""GGUF files as bases: the vectors of the folder that they were made from, the licence kept, broken ones refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_base
from transformers import AutoModelForCausalLM, AutoTokenizer

import antiphon
from antiphon.encoding.calibrate import shipped_texts
from antiphon.errors import ModelError
from antiphon.model.parity import between
from antiphon.training.plan import plan
from antiphon.training.recipe import read

pytestmark = pytest.mark.usefixtures("warm_checks")

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
REAL = Path(__file__).resolve().parents[2] / ".cache" / "real"
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    base: Path, file: Path, *, architecture: str = "llama", without: str = "nothing", bos: bool = True
) -> Path:
    """Write a tiny Llama as llama.cpp's converter does: its names, and the halves of heads interleaved."""
    model, config = AutoModelForCausalLM.from_pretrained(base), json.loads((base / "config.json").read_text())
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    words = json.loads((base / "tokenizer.json").read_text())
    tokens = sorted(words["model"]["vocab"], key=words["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in ("<unk>", "<s>", "</s>", "<pad>") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in words["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(bos)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, tensor in model.state_dict().items():
        stem = name.removesuffix(".weight")
        block, rest = "", stem
        if stem.startswith("model.layers."):
            _, _, number, rest = stem.split(".", 3)
            block = f"blk.{number}."
        values = tensor.float().numpy()
        if rest.endswith(("q_proj", "k_proj")):
            heads = config["num_attention_heads" if rest.endswith("q_proj") else "num_key_value_heads"]
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if NAMES[rest] != without:
            writer.add_tensor(f"{block}{NAMES[rest]}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "llama", pad_token_id=3)


@pytest.fixture(scope="module")
def file(base, tmp_path_factory):
    return write_gguf(base, tmp_path_factory.mktemp("gguf") / "model.gguf")


def test_a_run_over_a_file_is_planned_as_over_its_folder(base, file, tmp_path):
    rows = [{"query": f"question {number}", "positive": f"answer {number}"} for number in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "planned",
        "data": {"sets": [{"name": "pairs", "source": str(tmp_path / "pairs.jsonl")}]},
        "stage": [{"name": "one", "loss": "contrastive", "steps": 2, "batch_size": 4}],
    }
    of_file, of_folder = (plan(read({**recipe, "model": {"base": str(one)}})) for one in (file, base))
    assert (of_file.shape, of_file.stages) == (of_folder.shape, of_folder.stages)
    assert of_file.base == str(file)


def test_a_file_or_its_folder_gives_the_vectors_of_the_folder_that_it_was_made_from(base, file, tmp_path):
    wanted = antiphon.build(base, max_tokens=64)
    for source in (file, file.parent):
        assert between(wanted, antiphon.build(source, max_tokens=64)).equal
    model = antiphon.build(file, max_tokens=64)
    antiphon.save(model, tmp_path / "saved")  # with the head, whose folder is gone
    assert between(wanted, antiphon.load(tmp_path / "saved")).equal
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, tmp_path / "saved"))
    assert torch.equal(before.lm_head.weight, after.lm_head.weight)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert "quantization_config" not in config


def test_a_file_without_bos_has_none(tmp_path):
    base = make_base(tmp_path / "base", tokenizer="byte-level", pad_token_id=3)
    file = write_gguf(base, tmp_path / "model.gguf", bos=False)
    assert antiphon.build(file, max_tokens=64).preprocess(["a text"])["input_ids"][0, 0] != 1


def test_the_licence_of_the_file_comes_into_the_card(file, tmp_path):
    model = antiphon.build(file, "eol", pooling="last", max_tokens=64)
    antiphon.save(model, tmp_path / "saved")
    antiphon.export(tmp_path / "saved", to="hub", out=tmp_path / "published")
    assert "license: apache-2.0" in (tmp_path / "published" / "README.md").read_text()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(file, tmp_path, share):
    whole = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"cut\.gguf is cut off or broken .* download it again"):
        antiphon.build(tmp_path / "cut.gguf")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", b"<html>"])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="does not begin as a GGUF file does"):
        antiphon.build(tmp_path / "other.gguf")


def test_an_architecture_that_transformers_does_not_read_is_refused(base, tmp_path):
    write_gguf(base, tmp_path / "strange.gguf", architecture="mamba9")
    with pytest.raises(ModelError, match=r"strange\.gguf cannot be read: .*mamba9"):
        antiphon.build(tmp_path / "strange.gguf")


def test_a_file_that_lacks_a_weight_is_refused(base, tmp_path):
    write_gguf(base, tmp_path / "lacks.gguf", without="ffn_down")
    with pytest.raises(ModelError, match=r"lacks\.gguf holds no .*down_proj"):
        antiphon.build(tmp_path / "lacks.gguf")


def test_of_several_files_one_has_to_be_named(file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"2 GGUF files \(a\.gguf, b\.gguf\); name one"):
        antiphon.build(tmp_path)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "beginning", "known"),
    [("smollm2", "The capital of France is", "Paris"), ("gemma3", "Paris is the capital of", "France")],
)
def test_a_real_model_says_the_same_after_saving(tmp_path, name, beginning, known):
    files = sorted((REAL / name).glob("*.gguf"))
    if not files:
        pytest.skip(f"{name} is not there; `make real` brings it")
    antiphon.save(antiphon.build(files[0], max_tokens=64), tmp_path / "saved")
    before = AutoModelForCausalLM.from_pretrained(files[0].parent, gguf_file=files[0].name).eval()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    for key, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[key]), key
    tokenizer = AutoTokenizer.from_pretrained(files[0].parent, gguf_file=files[0].name)
    ids = tokenizer(beginning, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        said, again = (model.generate(ids, max_new_tokens=12, do_sample=False) for model in (before, after))
    assert torch.equal(said, again)
    assert known in tokenizer.decode(said[0])
    paragraphs = shipped_texts()[:200]
    wanted, found = (perplexity(model, tokenizer, paragraphs) for model in (before, after))
    assert found == pytest.approx(wanted, rel=1e-6)
    assert wanted < 200  # of unpacked weights that are the model's, not noise: a vocabulary of ten thousands of tokens


def perplexity(model, tokenizer, texts):
    """Return e to the mean negative log-likelihood of a token, text by text, 64 tokens of each at most."""
    losses, counts = [], []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)["input_ids"]
        with torch.inference_mode():
            losses.append(model(input_ids=ids, labels=ids).loss.double() * (ids.shape[1] - 1))
        counts.append(ids.shape[1] - 1)
    return float((sum(losses) / sum(counts)).exp())
