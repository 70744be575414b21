"""The contrastive losses under sentence-transformers' own trainer: labels, mixtures, and what it can be asked."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from test_losses_contrastive import COLUMNS, PAIRS, built, naive

from antiphon import compat
from antiphon.training.losses import LOSSES, ContrastiveSettings

RAGGED = [[1, 0], [1, 1], [0, 0], [1, 1], [0, 1]]


def rows(pairs, present=None):
    present = present or [[1] * (len(pair) - 2) for pair in pairs]
    table = [{**dict(zip(COLUMNS, pair, strict=False)), "label": row} for pair, row in zip(pairs, present, strict=True)]
    for row in table:
        for number, there in enumerate(row["label"], start=1):
            row[f"negative_{number}"] = row[f"negative_{number}"] if there else ""
    return Dataset.from_list(table)


def trained(model, data, folder, loss="contrastive", settings=None, **options):
    kind = LOSSES[loss]
    settings = settings or kind.settings()
    arguments = SentenceTransformerTrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 12,
            "per_device_train_batch_size": 5,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        }
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        loss=kind.build(model, settings),
        data_collator=kind.collator(model, arguments, settings),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_labels_say_which_negatives_are_there(tiny_base, tmp_path):
    model = built(tiny_base)
    log = trained(model, rows(PAIRS, RAGGED), tmp_path, settings=ContrastiveSettings(temperature=1.0), max_steps=1)
    assert log[0] == pytest.approx(naive(built(tiny_base), present=RAGGED, scale=1.0).item(), abs=1e-4)
    assert log[0] != pytest.approx(naive(built(tiny_base), scale=1.0).item(), abs=1e-2)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {"bf16": True}),
        ({"mini_batch_tokens": 60}, compat.checkpointing_arguments()),
        ({"mini_batch_size": 2, "matryoshka": (16, 32)}, {"gradient_accumulation_steps": 2}),
    ],
    ids=str,
)
def test_data_sets_of_different_numbers_of_negatives(tiny_base, tmp_path, settings, options):
    data = DatasetDict(
        {
            "two": rows(PAIRS, RAGGED),
            "one": rows([pair[:3] for pair in PAIRS]),
            "none": rows([pair[:2] for pair in PAIRS]).remove_columns("label"),
        }
    )
    settings = ContrastiveSettings(temperature=0.1, **settings)
    log = trained(built(tiny_base), data, tmp_path, settings=settings, num_train_epochs=4, max_steps=-1, **options)
    assert sum(log[-3:]) < 0.7 * sum(log[:3])


@pytest.mark.parametrize("loss", ["contrastive", "simcse"])
def test_with_lora(tiny_base, tmp_path, loss):
    model = built(tiny_base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_adapter(LoraConfig(r=8, target_modules="all-linear", lora_dropout=0.05))
    data = rows(PAIRS, RAGGED) if loss == "contrastive" else Dataset.from_dict({"text": [pair[1] for pair in PAIRS]})
    settings = LOSSES[loss].settings(temperature=0.5)
    log = trained(model, data, tmp_path, loss, settings, max_steps=25, learning_rate=1e-2)
    assert sum(log[-5:]) < sum(log[:5])
    kept = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    assert all(torch.equal(kept[name], value) for name, value in before.items())
