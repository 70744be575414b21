"""The losses under sentence-transformers' own trainer; and EOS learns where it pads."""

from __future__ import annotations

import pytest
import torch
from conftest import make_base
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

import antiphon
from antiphon import compat
from antiphon.training.losses import (
    LOSSES,
    MaskedNextTokenLoss,
    ReconstructionLoss,
    ReconstructionSettings,
    content_collator,
    masking_collator,
    release_padding,
)

EOS = 2
PAIRS = {
    "anchor": ["red apples", "a blue sea", "green hills", "grey stone"] * 4,
    "positive": ["fruit of the orchard", "waves and salt", "grass and sheep", "walls of a castle"] * 4,
}


@pytest.fixture(scope="module")
def padded_with_eos(tmp_path_factory):
    """A base whose configuration says that EOS pads, tied and untied: its EOS row would never learn."""
    root = tmp_path_factory.mktemp("eos")
    return {tied: make_base(root / str(tied), pad_token_id=EOS, tie_word_embeddings=tied) for tied in (False, True)}


def trained(model, loss, collator, folder, **options):
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            **{
                "output_dir": str(folder),
                "max_steps": 20,
                "per_device_train_batch_size": 8,
                "learning_rate": 1e-2,
                "lr_scheduler_type": "constant",
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": [],
                "use_cpu": True,
                "disable_tqdm": True,
                **options,
            }
        ),
        train_dataset=Dataset.from_dict(PAIRS),
        loss=loss,
        data_collator=collator,
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def one_backward(model):
    model.train()
    loss = ReconstructionLoss(model, ReconstructionSettings(head="frozen"))
    batch = content_collator(model)([{"anchor": "one text", "positive": "another, longer text"}])
    features = [
        {key.removeprefix(column): value for key, value in batch.items() if key.startswith(column)}
        for column in ("anchor_", "positive_")
    ]
    assert EOS not in features[0]["content_ids"]  # EOS learns as what is pooled, not as a target
    sum(loss(features).values()).backward()


def test_without_the_release_eos_would_not_learn(padded_with_eos):
    """The trap itself, so that the tests below can fail."""
    model = antiphon.build(padded_with_eos[True], "echo", pooling="last", max_tokens=64, device="cpu")
    embedding = model[0].model.get_input_embeddings()
    assert embedding.padding_idx == EOS
    model(model.preprocess(["a text"]))["sentence_embedding"].sum().backward()
    assert not embedding.weight.grad[EOS].any()
    embedding.weight.grad = None
    release_padding(model)
    model(model.preprocess(["a text"]))["sentence_embedding"].sum().backward()
    assert embedding.weight.grad[EOS].any()


@pytest.mark.parametrize("template", ["classical", "echo"])
@pytest.mark.parametrize("tied", [False, True])
def test_eos_learns_in_full_training_and_after_a_reload(padded_with_eos, tmp_path, tied, template):
    model = antiphon.build(padded_with_eos[tied], template, pooling="last", max_tokens=64, device="cpu")
    one_backward(model)
    assert model[0].model.get_input_embeddings().weight.grad[EOS].any()
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"), device="cpu").train()
    assert again[0].model.get_input_embeddings().padding_idx == EOS  # a reload freezes it again
    release_padding(again)
    features = [again.preprocess(["a text", "longer, another text"]) for _ in range(2)]
    CachedMultipleNegativesRankingLoss(again)(features, None).backward()
    assert again[0].model.get_input_embeddings().weight.grad[EOS].any()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("released_first", [False, True])
def test_eos_learns_in_lora(padded_with_eos, tied, released_first):
    model = antiphon.build(padded_with_eos[tied], "echo", pooling="last", max_tokens=64, device="cpu")
    if released_first:
        release_padding(model)
    model.add_adapter(
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], trainable_token_indices={"embed_tokens": [EOS]})
    )
    one_backward(model)
    learned = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    (delta,) = [gradient for name, gradient in learned.items() if "trainable_tokens_delta" in name]
    assert delta.shape[0] == 1
    assert delta.any()
    assert all("lora" in name or "trainable_tokens_delta" in name for name in learned)


def test_a_tied_head_reads_the_adapted_row(padded_with_eos):
    model = antiphon.build(padded_with_eos[True], "echo", pooling="last", max_tokens=64, device="cpu")
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [EOS]}))
    head = ReconstructionLoss(model).head
    before = head.weight.detach().clone()
    (delta,) = [parameter for name, parameter in model.named_parameters() if "trainable_tokens_delta" in name]
    with torch.no_grad():
        delta += 1.0
    changed = (head.weight - before).abs().sum(dim=1) > 0
    assert changed.nonzero().flatten().tolist() == [EOS]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("template", ["classical", "echo"])
def test_reconstruction_learns_under_the_trainer(padded_with_eos, tmp_path, tied, template):
    model = antiphon.build(padded_with_eos[tied], template, pooling="last", max_tokens=64, device="cpu")
    embedding = model[0].model.get_input_embeddings().weight
    eos = embedding[EOS].detach().clone()
    log = trained(model, ReconstructionLoss(model), content_collator(model), tmp_path)
    assert len(log) == 20
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    for key in ("ebq2d", "ebd2q"):  # each component is logged under its name
        assert log[-1][key] < log[0][key]
    assert not torch.equal(embedding[EOS], eos)


@pytest.mark.parametrize(
    "options", [{"bf16": True}, compat.checkpointing_arguments(), {"gradient_accumulation_steps": 2}]
)
def test_with_the_options_of_the_trainer(padded_with_eos, tmp_path, options):
    model = antiphon.build(padded_with_eos[False], "echo", pooling="mean", max_tokens=64, dtype="float32", device="cpu")
    log = trained(model, ReconstructionLoss(model), content_collator(model), tmp_path, **options)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]


def test_with_lora(padded_with_eos, tmp_path):
    model = antiphon.build(padded_with_eos[True], "echo", pooling="last", max_tokens=64, device="cpu")
    before = model[0].model.get_input_embeddings().weight.detach().clone()
    model.add_adapter(LoraConfig(r=8, target_modules="all-linear"))
    log = trained(model, ReconstructionLoss(model), content_collator(model), tmp_path)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    assert torch.equal(model[0].model.get_input_embeddings().weight, before)


def test_mntp_learns_under_the_trainer(padded_with_eos, tmp_path):
    model = antiphon.build(
        padded_with_eos[True], "echo", pooling="mean", max_tokens=64, bidirectional=True, device="cpu"
    )
    log = trained(model, MaskedNextTokenLoss(model), masking_collator(model), tmp_path, max_steps=40)
    losses = [entry["loss"] for entry in log]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_table_names_losses():
    assert list(LOSSES) == ["reconstruction", "contrastive", "mntp", "next_token", "simcse"]
    assert all(name == kind.name for name, kind in LOSSES.items())
