"""One row for every name of the libraries below that is private or was renamed: what it must do, and what would break.

A row that fails under a new release names the function of antiphon.compat to mend, and what is lost until then.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from conftest import make_base, vectors
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaModel

import antiphon
from antiphon import compat
from antiphon.errors import ConfigError, ModelError
from antiphon.model.adapted import adapt
from antiphon.model.checkpoint import MODULES
from antiphon.model.parity import unlike_texts

SOURCE = Path(compat.__file__).parent


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("compat") / "llama")


@pytest.fixture(scope="module")
def model(base):
    return antiphon.build(base, "echo", max_tokens=64, dtype="float32")


def decoder() -> LlamaModel:
    return LlamaModel(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    ).eval()


def cache_argument(model):
    inner = decoder()
    cache = DynamicCache(config=inner.config)
    inner(torch.tensor([[1, 2, 3]]), use_cache=True, **{compat.cache_argument(inner): cache})
    assert cache.get_seq_length() == 3
    with pytest.raises(ModelError, match="Linear takes no cache"):
        compat.cache_argument(nn.Linear(2, 2))


def cache_given(model):
    cache, inner, seen = DynamicCache(), decoder(), []
    inner.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, given: seen.append(compat.cache_given(given, DynamicCache)), with_kwargs=True
    )
    inner(torch.tensor([[1, 2]]), use_cache=True, **{compat.cache_argument(inner): cache})
    assert len(seen) == 1


def attention(model):
    inner = decoder()
    before = compat.attention_of(inner.config)
    compat.set_attention(inner.config, "eager")
    assert compat.attention_of(inner.config) == "eager"
    assert inner(torch.tensor([[1, 2]]), output_attentions=True).attentions is not None  # only eager gives them
    compat.set_attention(inner.config, before)
    assert compat.attention_of(inner.config) == before != "eager"


def revision_of(model):
    config = model[0].model.config
    assert compat.revision_of(config) is None  # a folder has none
    config._commit_hash = "abc"  # as transformers notes what it read from the hub
    assert compat.revision_of(config) == "abc"


def source_of(model):
    assert Path(compat.source_of(model[0].model.config), "config.json").exists()
    assert compat.source_of(LlamaConfig()) == ""


def forget_quantisation(model):
    whole = LlamaForCausalLM(decoder().config)
    whole.config.quantization_config = {"quant_method": "gguf"}
    whole.hf_quantizer = SimpleNamespace(is_serializable=lambda **given: False, quantization_config=None)
    compat.forget_quantisation(whole)
    with TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        assert "quantization_config" not in Path(folder, "config.json").read_text()


def gguf_bar_switched(model):
    from transformers import modeling_gguf_pytorch_utils as unpacking
    from transformers.utils import logging

    own, shown = unpacking.tqdm, logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with compat.gguf_bar_switched():
        assert not isinstance(unpacking.tqdm([1, 2], desc="Converting"), own)
        assert list(unpacking.tqdm([1, 2], desc="Converting")) == [1, 2]
    assert unpacking.tqdm is own
    if shown:
        logging.enable_progress_bar()


def copied_module(model):
    whole = nn.Sequential(nn.Linear(2, 2), nn.Identity()).train()
    shown = compat.copied_module(whole, {"0": compat.children_of(whole)["0"], "1": nn.ReLU()}, note=3)
    assert shown[0] is whole[0]
    assert isinstance(shown[1], nn.ReLU)
    assert shown.note == 3
    assert not shown.training
    assert isinstance(whole[1], nn.Identity)
    assert whole.training
    assert not hasattr(whole, "note")


def run_compiled(model):
    ways = []

    def build(graph, inputs):
        ways.append("built")
        return graph.forward

    class Doubled(nn.Module):
        def forward(self, states):
            return states * 2

    part = Doubled()
    compat.run_compiled(part, lambda: part.training, backend=build)
    states = torch.ones(1, 2)
    part.eval()(states)
    assert ways == []
    copied = compat.copied_module(part, {}).train()
    torch.testing.assert_close(copied(states), part(states))
    assert ways == []
    part.train()(states)
    assert ways == ["built"]
    compat.run_plainly(part)
    part(torch.ones(2, 2))
    assert ways == ["built"]


def version_of(model):
    tensor = torch.zeros(2)
    before = compat.version_of(tensor)
    tensor.add_(1)
    assert compat.version_of(tensor) > before
    with torch.inference_mode():
        assert compat.version_of(torch.zeros(1)) == 0


def set_backend(model):
    tokenizer, other = copy.deepcopy(model.tokenizer), copy.deepcopy(model.tokenizer.backend_tokenizer)
    other.post_processor = None
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    compat.set_backend(tokenizer, other)
    assert tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id


def lora_unavailable(model):
    from transformers.integrations import peft

    assert peft.MIN_PEFT_VERSION


def adapters_acting(model):
    from peft.tuners.lora import Linear, LoraConfig

    layer = Linear(nn.Linear(2, 2), adapter_name="one", config=LoraConfig(r=1), r=1)
    assert compat.adapters_acting(layer) == ("one",)
    layer.enable_adapters(False)
    assert compat.adapters_acting(layer) == compat.adapters_acting(nn.Linear(2, 2)) == ()


def forget_adapters(model):
    backbone = SimpleNamespace(_hf_peft_config_loaded=True, peft_config={"default": None})
    compat.forget_adapters(backbone)
    assert not backbone._hf_peft_config_loaded
    assert not hasattr(backbone, "peft_config")
    assert decoder()._hf_peft_config_loaded is False  # transformers still looks at this name


def hand_on(model):
    module = SimpleNamespace(forward_kwargs={"task"})
    before = module.forward_kwargs
    compat.hand_on(module, ("is_causal",))
    assert module.forward_kwargs == {"task", "is_causal"}
    assert before == {"task"}
    assert hasattr(model[0], "forward_kwargs")


def rows_of_column(model):
    column = {"input_ids": torch.arange(8).reshape(4, 2), "task": "query"}
    rows = compat.rows_of_column(column, 1, 3)
    assert rows["input_ids"].tolist() == [[2, 3], [4, 5]]
    assert rows["task"] == "query"


def load_checkpoint(model):
    from sentence_transformers import SentenceTransformerTrainer

    assert callable(SentenceTransformerTrainer._load_from_checkpoint)


def checkpointing_arguments(model):
    transformers.TrainingArguments(output_dir="unused", use_cpu=True, **compat.checkpointing_arguments())


def prepacked(model):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    linear, states = nn.Linear(16, 8), torch.randn(4, 16)
    with torch.no_grad():
        packed = compat.prepacked_weight(linear.weight.detach(), 4)
        product = compat.prepacked_product(states, packed, linear.bias.detach())
        torch.testing.assert_close(product, linear(states))


def scaled_product(model):
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("8-bit products need a GPU of compute capability 8.9 or above")
    a, b = torch.ones(16, 32, device="cuda"), torch.ones(16, 32, device="cuda")
    ones_M1, ones_1O = torch.ones(16, 1, device="cuda"), torch.ones(1, 16, device="cuda")
    eight = torch.float8_e4m3fn
    product = compat.scaled_product(a.to(eight), b.to(eight).t(), ones_M1, ones_1O, torch.bfloat16)
    assert (product == 32).all()


BREAKS: dict[Callable[..., None], str] = {
    cache_argument: "the Encoder, reconstruct",
    cache_given: "the Encoder",
    attention: "the Encoder, packed training, bidirectional attention",
    revision_of: "what a folder of vectors says of its model",
    source_of: "saving the head, cards, names of runs",
    forget_quantisation: "GGUF files as bases",
    gguf_bar_switched: "a script that opens a GGUF file and prints nothing",
    copied_module: "the Encoder",
    run_compiled: "compiled layers in training",
    version_of: "the Encoder notices trained weights",
    set_backend: "baking the template into a published tokenizer",
    lora_unavailable: "LoRA refused before it is paid for",
    adapters_acting: "the Encoder under adapters",
    forget_adapters: "saving a model whose adapters were merged",
    hand_on: "decoding losses, packed training",
    rows_of_column: "the contrastive loss with a gradient cache",
    load_checkpoint: "the best checkpoint of a stage",
    checkpointing_arguments: "recomputed activations",
    prepacked: "the fast linear layers on a CPU",
    scaled_product: "8-bit products on a GPU",
}


@pytest.mark.parametrize("row", BREAKS, ids=lambda row: f"{row.__name__}: {BREAKS[row]}")
def test_what_is_private_below_does_what_is_needed(row, model):
    row(model)


def test_a_saved_model_is_loaded_both_ways_to_the_same_vectors(model, tmp_path, monkeypatch):
    model.prompts = {"query": "Find what answers: ", "document": ""}
    folder = antiphon.save(model, tmp_path / "saved")
    texts = unlike_texts()
    stock = antiphon.load(folder)
    monkeypatch.delattr("sentence_transformers.base.model.BaseModel._load_with_module_classes")
    by_hand = antiphon.load(folder)
    for name in ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "max_seq_length", "dtype"):
        assert getattr(stock, name) == getattr(by_hand, name), name
    for given in ({}, {"prompt_name": "query"}):
        np.testing.assert_array_equal(vectors(by_hand, texts, **given), vectors(stock, texts, **given))
        np.testing.assert_array_equal(vectors(by_hand, texts, **given), vectors(model, texts, **given))
    assert set(MODULES) >= {
        f"antiphon.modules.{type(part).__name__}" for part in by_hand if "antiphon" in str(type(part))
    }


# --- LoRA


def releases(monkeypatch, *, needed: str, peft: str) -> None:
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", needed)
    monkeypatch.setattr(compat, "version", lambda name: peft)
    monkeypatch.setattr(transformers, "__version__", "5.24.0")


def lora_recipe(base: Path, folder: Path) -> dict[str, object]:
    rows = "".join(f'{{"query": "apple {n}", "positive": "sea stone wall {n}"}}\n' for n in range(16))
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    stage = {"loss": "contrastive", "steps": 2, "batch_size": 4}
    return {
        "name": "lora",
        "out": str(folder / "run"),
        "model": {"base": str(base), "max_tokens": 96},
        "data": {"root": str(folder), "sets": [{"name": "one", "source": "rows.jsonl"}]},
        "stage": [{"name": "whole", **stage}, {"name": "adapters", "lora": {"rank": 2}, **stage}],
    }


def test_lora_is_refused_before_anything_is_spent(base, tmp_path, monkeypatch):
    from antiphon.training.recipe import read

    table = lora_recipe(base, tmp_path)
    releases(monkeypatch, needed="0.22.0", peft="0.21.2")
    model = antiphon.build(base, max_tokens=96)
    sentence = r"transformers 5\.24\.0 needs peft 0\.22\.0 or newer and peft 0\.21\.2 is .*transformers 5\.23 with peft"
    for refused in (
        lambda: antiphon.training.plan(read(table)),
        lambda: antiphon.train(table),
        lambda: adapt(model, tmp_path),
    ):
        with pytest.raises(ConfigError, match=sentence):
            refused()
    assert not (tmp_path / "run").exists()
    antiphon.training.plan(read({**table, "stage": table["stage"][:1]}))  # without LoRA nothing is in the way


def test_a_lora_recipe_takes_its_steps_where_the_releases_go_together(base, tmp_path):
    if compat.lora_unavailable():
        pytest.skip(compat.lora_unavailable())
    folder = antiphon.train(lora_recipe(base, tmp_path))
    assert np.isfinite(vectors(antiphon.load(folder), ["apple"])).all()


# --- nobody else


def foreign_private_names(tree: ast.AST) -> list[str]:
    """Attributes and imports that begin with one underscore and are not defined in the file itself."""
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    found = []
    for node in ast.walk(tree):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom):
            names = [*(alias.name for alias in node.names), *(node.module or "").split(".")]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr", "delattr"):
            names = [str(argument.value) for argument in node.args[1:2] if isinstance(argument, ast.Constant)]
        found += [
            f"line {node.lineno}: {name}"
            for name in names
            if name.startswith("_") and not name.startswith("__") and name not in own
        ]
    return found


def test_private_names_of_others_stand_in_compat_alone():
    for path in SOURCE.rglob("*.py"):
        if path.name != "compat.py":
            assert not foreign_private_names(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize(
    "code", ["model._modules", "from torch._C import x", "from torch import _x", "getattr(model, '_x', 0)", "a._b = 1"]
)
def test_a_private_name_of_another_is_seen(code):
    assert foreign_private_names(ast.parse(code))
    assert not foreign_private_names(ast.parse("class A:\n    def _b(self):\n        self._c = a._b + a.__dict__"))
