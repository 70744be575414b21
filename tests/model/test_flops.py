"""The one formula of costs against torch's own counter, for gated and plain MLPs, tied heads and experts."""

from __future__ import annotations

import pytest
import torch
from conftest import SIZES, make_base
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, GPTNeoXConfig, LlamaConfig, MixtralConfig, PhiConfig, Qwen3Config

import antiphon
from antiphon.model.flops import PUBLISHED, forward_flops, shape_of, shape_of_decoder, vocabulary_flops
from antiphon.training.losses import LOSSES, ContrastiveSettings, ReconstructionSettings
from antiphon.training.recipe import read

TOKENS = 32
CONFIGS = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gpt_neox": GPTNeoXConfig, "phi": PhiConfig}


def decoder(kind: type, **options: object) -> torch.nn.Module:
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim" or kind in (LlamaConfig, Qwen3Config)}
    model = AutoModel.from_config(kind(**sizes, vocab_size=256, **options)).eval()
    model.set_attn_implementation("eager")
    return model


def counted(model: torch.nn.Module, tokens: int) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(4, 4 + tokens)[None], use_cache=False)
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("tokens", [TOKENS, 96])
def test_the_formula_counts_what_torch_counts(kind, tokens):
    model = decoder(CONFIGS[kind])
    # the rotary table, a product of its own, is the only thing that the formula leaves out
    assert forward_flops(shape_of_decoder(model), tokens) == pytest.approx(counted(model, tokens), rel=0.01)


def test_experts_count_as_often_as_they_are_asked():
    model = decoder(MixtralConfig, num_local_experts=4, num_experts_per_tok=2)
    shape = shape_of_decoder(model)
    experts = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    assert shape.body - shape.active == experts // 2
    matrices = [weight.numel() for name, weight in model.named_parameters() if weight.dim() > 1 and "embed" not in name]
    assert shape.body == sum(matrices)


def test_a_shape_needs_no_weights(tmp_path):
    base = make_base(tmp_path / "base")
    loaded = shape_of_decoder(AutoModel.from_pretrained(base))
    (base / "model.safetensors").unlink()
    assert shape_of(str(base)) == loaded
    assert shape_of("nano").parameters == pytest.approx(3.88e6, rel=0.01)


def test_the_table_agrees_with_modules_of_the_same_sizes():
    shape = PUBLISHED["Qwen/Qwen3-0.6B"]
    config = Qwen3Config(
        num_hidden_layers=shape.layers, hidden_size=shape.width, intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads, head_dim=shape.head_width,
        vocab_size=shape.vocabulary, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device("meta"):
        assert shape_of_decoder(AutoModel.from_config(config)) == shape


def test_an_evaluation_reports_what_a_plan_counts(tmp_path):
    from antiphon.evaluation.costs import _flops

    base = make_base(tmp_path / "base")
    model = antiphon.build(str(base), dtype="float32", max_tokens=128)
    assert _flops(model, [10, 500]) == [forward_flops(shape_of(str(base)), tokens) for tokens in (10, 500)]


def test_the_vocabulary_is_one_product():
    shape = shape_of("nano")
    states, head = torch.zeros(7, shape.width), torch.zeros(shape.vocabulary, shape.width)
    with FlopCounterMode(display=False) as counter:
        states @ head.T
    assert vocabulary_flops(shape, 7) == counter.get_total_flops()


def test_every_loss_states_its_cost():
    for kind in LOSSES.values():
        cost = kind.cost(kind.settings())
        assert cost.decoded_texts >= 0
        assert not cost.cached
    assert LOSSES["reconstruction"].cost(ReconstructionSettings()).decoded_texts == 2
    assert LOSSES["reconstruction"].cost(ReconstructionSettings(interleave="alternate")).decoded_texts == 1
    assert (
        LOSSES["contrastive"].cost(ContrastiveSettings(mini_batch_size=8, mini_batch_tokens=100)).texts_at_once is None
    )


def test_a_gradient_cache_bounds_the_memory_of_a_plan():
    """By texts and by tokens alike: a batch of many texts is planned as its mini-batch."""

    def memory(**settings: int) -> float:
        stage = {"name": "two", "loss": "contrastive", "steps": 1, "batch_size": 4096, "settings": settings}
        recipe = read(
            {
                "name": "cached",
                "model": {"base": "nano", "template": "classical", "max_tokens": 128},
                "data": {"sets": [{"name": "none", "source": "nowhere.jsonl"}]},
                "stage": [stage],
                "plan": {"gpus": 1},
            }
        )
        from antiphon.training import plan

        return plan(recipe).stages[0].memory

    whole, by_texts, by_tokens = memory(), memory(mini_batch_size=16), memory(mini_batch_tokens=16 * 128)
    assert by_texts == by_tokens
    assert by_tokens < whole / 20
