"""Stage I as its authors' code runs it: against their figures, against a naive restatement, and each setting alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from published_data import GOLDEN, INSTRUCTIONS, MODELS, SHIPPED, golden
from transformers import AutoModelForCausalLM

import antiphon
from antiphon.errors import ConfigError
from antiphon.training.losses import ReconstructionLoss, ReconstructionSettings, reconstruction_collator

TEMPLATE = antiphon.text.template.Template("header", "user:\n{prompt}; [{text}]!", "user:\n[{text}]!")
ROWS = [
    ("Find the answer", "who split a string?", "str.split cuts a string at every separator."),
    (
        "Find the answer",
        "read a file",
        "Path.read_text opens the file, decodes it and closes it again, whatever happens.",
    ),
    ("Find a module that fits", "sort", "heapq holds the smallest."),
]
SETTINGS = {
    "as_is": {"preset": "as_published"},
    "full_mask": {"preset": "as_published", "decode_mask": "full"},
    "next": {"preset": "as_published", "decode_mask": "full", "vector_place": "next"},
    "formula": {},
}
SHIPPED_LOSSES: dict[str, tuple[float, float]] = {
    "as_is": (6.7648, 6.8816),
    "full_mask": (6.8494, 6.871),
    "next": (6.8369, 6.866),
    "formula": (6.6807, 6.8782),
}
"""Of document to query and query to document, on the tiny model that ships with the tests."""


def joined(batches: list[dict], padding: int) -> dict:
    """One batch of several, right-padded, as rows that get different instructions are collated apart."""
    out: dict = {}
    for key, first in batches[0].items():
        if not torch.is_tensor(first):
            out[key] = first
            continue
        width = max(batch[key].shape[1] for batch in batches)
        fill = padding if key == "input_ids" else 0
        out[key] = torch.cat([F.pad(batch[key], (0, width - batch[key].shape[1]), value=fill) for batch in batches])
    return out


def components(model, rows, settings) -> tuple[ReconstructionLoss, list[dict]]:
    loss = ReconstructionLoss(model, ReconstructionSettings(**settings))
    read = reconstruction_collator(model, None, loss.settings.layout).preprocess_fn
    eos = model.tokenizer.eos_token_id
    queries = joined([read([query], prompt=prompt, task="query") for prompt, query, _ in rows], eos)
    return loss, [queries, read([document for *_, document in rows], prompt="", task="document")]


def unweighted(loss: ReconstructionLoss, columns: list[dict]) -> tuple[float, float]:
    found = loss(columns)
    return found["ebd2q"].item() / 0.8, found["ebq2d"].item() / 0.2


@pytest.fixture
def llama3_like(tmp_path) -> Path:
    for file in (GOLDEN / "llama3_like").iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(MODELS / "english-6m" / "model.safetensors", tmp_path)
    return tmp_path


@golden
@pytest.mark.parametrize("name", SETTINGS)
def test_losses_and_gradients_are_those_of_the_authors_code(name, llama3_like):
    facts = json.loads((GOLDEN / "anchor_stage1.json").read_text(encoding="utf-8"))
    rows = json.loads((GOLDEN / "rows.json").read_text(encoding="utf-8"))
    rows = [(INSTRUCTIONS[row["set"]], row["query"], row["positive"]) for row in rows]
    model = antiphon.build(llama3_like, "anchor", pooling="last", max_tokens=512, dtype="float32")
    loss, columns = components(model, rows, SETTINGS[name])
    for column, side in zip(columns, ("query", "document"), strict=True):
        there = column["attention_mask"].bool()
        assert [ids[kept].tolist() for ids, kept in zip(column["input_ids"], there, strict=True)] == facts[side]["ids"]
    # this configuration says that EOS pads, so the row of EOS got no gradient as an input there; in Llama 3 it gets one
    model[0].model.embed_tokens.padding_idx = facts["eos"]
    found = loss(columns)
    sum(found.values()).backward()
    losses = (found["ebd2q"].item() / 0.8, found["ebq2d"].item() / 0.2)
    wanted = {"next": (5.8891, 5.4487), "formula": (4.8276, 4.6639)}
    if name in facts:
        wanted[name] = (facts[name]["d2q"], facts[name]["q2d"])
        gradients = dict(model[0].model.named_parameters())
        for parameter, norm in facts[name]["grad_norms"].items():
            assert gradients[parameter.removeprefix("model.")].grad.norm().item() == pytest.approx(norm, rel=1e-3)
    assert losses == pytest.approx(wanted[name], abs=1e-4)


def published(whole, sequences, content_from, vectors, eos, *, mask_content: bool) -> float:
    """Restate the published decode: left padding, the vector before it, ids as labels but for EOS, one mask."""
    width = max(map(len, sequences))
    ids = torch.tensor([[eos] * (width - len(row)) + row for row in sequences])
    seen = torch.tensor(
        [
            [0] * (width - len(row)) + [int(not mask_content or n >= start) for n in range(len(row))]
            for row, start in zip(sequences, content_from, strict=True)
        ]
    )
    embedded = torch.cat([vectors[:, None], whole.get_input_embeddings()(ids)], dim=1)
    mask = torch.cat([torch.ones(len(ids), 1, dtype=torch.long), seen], dim=1)
    labels = torch.cat([torch.full((len(ids), 1), -100), ids.masked_fill(ids == eos, -100)], dim=1)
    logits = whole(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100).item()


@pytest.mark.parametrize("name", ["as_is", "full_mask"])
def test_the_shipped_model_gives_the_losses_of_a_naive_restatement(name):
    model = antiphon.build(SHIPPED, TEMPLATE, pooling="last", max_tokens=96, dtype="float32")
    whole = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    eos = model.tokenizer.eos_token_id
    model.eval()
    loss, columns = components(model, ROWS, SETTINGS[name])
    read = [
        [ids[kept.bool()].tolist() for ids, kept in zip(column["input_ids"], column["attention_mask"], strict=True)]
        for column in columns
    ]
    starts = [[marks.tolist().index(1) for marks in column["pool_mask"]] for column in columns]
    with torch.no_grad():
        vectors = [
            torch.stack([whole.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]) for rows in read
        ]
        wanted = tuple(
            published(whole, read[to], starts[to], vectors[1 - to], eos, mask_content=name == "as_is") for to in (0, 1)
        )
    assert unweighted(loss, columns) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_shipped_model_gives_the_losses_that_it_gave(name):
    model = antiphon.build(SHIPPED, TEMPLATE, pooling="last", max_tokens=96, dtype="float32").eval()
    assert unweighted(*components(model, ROWS, SETTINGS[name])) == pytest.approx(SHIPPED_LOSSES[name], abs=1e-4)


def test_a_long_text_loses_its_end_or_keeps_it():
    model = antiphon.build(SHIPPED, TEMPLATE, pooling="last", max_tokens=24, dtype="float32")
    eos, long = model.tokenizer.eos_token_id, "a b c d e f g h i j k l m n o p q r s t u v w x y z" * 3
    for truncation, ends in (("keep_eos", True), ("cut_eos", False)):
        settings = ReconstructionSettings(truncation=truncation)
        read = reconstruction_collator(model, None, settings.layout).preprocess_fn
        row = read([long, "short"], prompt="", task="document")
        ids = row["input_ids"]
        assert ids.shape[1] == 24
        assert (ids[0, -1].item() == eos) is ends
        assert row["pool_mask"][0, -1] == 1
        short = ids[1][row["attention_mask"][1].bool()]
        assert short[-1].item() == eos


def test_a_preset_can_be_changed_and_is_checked():
    changed = ReconstructionSettings(preset="as_published", targets="content").layout
    assert (changed.targets, changed.decode_mask, changed.vector_place) == ("content", "content", "padded")
    assert ReconstructionSettings().layout.truncation == "keep_eos"
    with pytest.raises(ConfigError, match="vector_place is 'far'; take one of next, padded"):
        ReconstructionSettings(vector_place="far")
    stock = antiphon.build(SHIPPED, "classical", pooling="last", max_tokens=64, dtype="float32")
    with pytest.raises(ConfigError, match="told by a template's slots"):
        reconstruction_collator(stock, None, ReconstructionSettings(preset="as_published").layout)
