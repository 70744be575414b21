"""Stage II, LLM2Vec's supervised loss and its MNTP, against the figures of the authors' own code."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import Oracle
from published_data import GOLDEN, INSTRUCTIONS, MODELS, SHIPPED, golden

import antiphon
from antiphon.text.template import Template
from antiphon.training.losses import (
    ContrastiveLoss,
    ContrastiveSettings,
    MaskedNextTokenLoss,
    MaskedNextTokenSettings,
    contrastive_collator,
)
from antiphon.training.losses.mntp import TARGETS

ROWS = [
    ("Find the answer", "who split a string?", "str.split cuts a string at every separator.", "a dictionary"),
    ("Find the answer", "read a file", "Path.read_text opens the file and reads it.", "a list of numbers"),
    ("Find a module", "sort", "heapq holds the smallest.", "math has sine and cosine"),
]
NAMES = {"english-6m": "en6m", "stories260K": "stories"}
TEMPLATE = Template("own", "user:\n{prompt}; [{text}]!", "user:\n[{text}]!", eos=False)
SHIPPED_LOSSES = {"anchor": 3.4719, "llm2vec": 17.3496}


def contrastive(model, rows) -> float:
    """The loss of rows that get instructions of their own: their queries are collated one by one."""
    loss = ContrastiveLoss(model, ContrastiveSettings(temperature=0.02, mask_identical_texts=False, packed=False))
    read = contrastive_collator(model).preprocess_fn
    queries = [read([query], prompt=prompt, task="query") for prompt, query, *_ in rows]
    width = max(batch["input_ids"].shape[1] for batch in queries)
    joined = {
        key: torch.cat(
            [F.pad(batch[key], (0, width - batch[key].shape[1] if key != "text_key" else 0)) for batch in queries]
        )
        for key, value in queries[0].items()
        if torch.is_tensor(value)
    }
    documents = [read([row[place] for row in rows], prompt="", task="document") for place in (2, 3)]
    model.eval()
    with torch.no_grad():
        return float(loss([{**queries[0], **joined}, *documents]))


def rows_of_golden():
    rows = json.loads((GOLDEN / "rows.json").read_text(encoding="utf-8"))
    return [(INSTRUCTIONS[row["set"]], row["query"], row["positive"], row["negative"]) for row in rows]


@golden
def test_stage_two_has_the_loss_of_the_authors_code(tmp_path):
    for file in (GOLDEN / "llama3_like").iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(MODELS / "english-6m" / "model.safetensors", tmp_path)
    model = antiphon.build(tmp_path, "anchor", pooling="last", max_tokens=512, dtype="float32")
    wanted = json.loads((GOLDEN / "anchor_stage2.json").read_text(encoding="utf-8"))["anchor|en6m-l3|causal"]["loss"]
    assert wanted == pytest.approx(3.110504, abs=1e-6)
    assert contrastive(model, rows_of_golden()) == pytest.approx(wanted, abs=1e-5)


@golden
@pytest.mark.parametrize("folder", NAMES)
@pytest.mark.parametrize("attention", ["bi", "causal"])
def test_llm2vecs_supervised_loss_is_that_of_its_code(folder, attention):
    facts = json.loads((GOLDEN / "llm2vec_supervised.json").read_text(encoding="utf-8"))
    model = antiphon.build(
        MODELS / folder, "llm2vec", pooling="mean", max_tokens=512, dtype="float32", bidirectional=attention == "bi"
    )
    wanted = facts[f"llm2vec|{NAMES[folder]}|{attention}"]["loss"]
    assert contrastive(model, rows_of_golden()) == pytest.approx(wanted, abs=1e-5)


@golden
@pytest.mark.parametrize("folder", NAMES)
def test_mntp_and_its_vectors_are_those_of_llm2vecs_code(folder):
    arrays = np.load(GOLDEN / "mntp_batch.npz")
    key = f"{NAMES[folder]}|sdpa"
    ids, mask, labels = (torch.from_numpy(arrays[f"{key}|{name}"]).long() for name in ("ids", "mask", "labels"))
    model = antiphon.build(
        MODELS / folder, "llm2vec", pooling="mean", max_tokens=512, dtype="float32", bidirectional=True
    )
    loss = MaskedNextTokenLoss(model, MaskedNextTokenSettings(packed=False)).eval()
    # a label on the first token has nothing before it: the authors' shift drops it
    labels[:, 0] = -100
    with torch.no_grad():
        found = loss([{"input_ids": ids, "attention_mask": mask, TARGETS: labels}])
        states = model[0].model(input_ids=ids, attention_mask=mask).last_hidden_state
    wanted = json.loads((GOLDEN / "mntp.json").read_text(encoding="utf-8"))[key]
    assert float(found) == pytest.approx(wanted, abs=1e-5)
    means = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    error = np.abs(means.numpy() - arrays[f"{key}|mean"]).max()
    assert error < 1e-5 * np.abs(arrays[f"{key}|mean"]).max() * 10


@pytest.mark.parametrize("name", SHIPPED_LOSSES)
def test_the_shipped_model_gives_the_losses_of_a_naive_restatement(name):
    """Scale 50, cosine, all documents of the batch and one hard negative a row: by hand, and as a figure."""
    template = TEMPLATE if name == "anchor" else name
    pooling, bidirectional = ("last", False) if name == "anchor" else ("mean", True)
    model = antiphon.build(
        SHIPPED, template, pooling=pooling, max_tokens=96, dtype="float32", bidirectional=bidirectional
    )
    oracle = Oracle(SHIPPED, bidirectional=bidirectional)
    before, after = ("user:\n", "!") if name == "anchor" else ("", "")

    def vector(text: str, prompt: str = "") -> np.ndarray:
        told = f"{before}{prompt}; " if prompt else before
        head = oracle.ids(told.rstrip(" "), first=True) if told else []
        body = oracle.ids((" " if prompt else "") + text, first=not told)
        tail = oracle.ids(after, first=False) if after else []
        ids = [oracle.tokenizer.bos_token_id, *head, *body, *tail]
        pooled = [False] * (1 + len(head)) + [True] * len(body) + [False] * len(tail)
        found = oracle.vector(ids, pooled, pooling)
        return found / np.linalg.norm(found)

    queries = np.stack([vector(query, prompt) for prompt, query, *_ in ROWS])
    documents = np.stack([vector(row[place]) for place in (2, 3) for row in ROWS])
    logits = torch.from_numpy(50 * queries @ documents.T)
    wanted = F.cross_entropy(logits, torch.arange(len(ROWS))).item()
    found = contrastive(model, ROWS)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert found == pytest.approx(SHIPPED_LOSSES[name], abs=1e-3)
