"""The collator's targets are the text that the encoder read, and nothing else."""

from __future__ import annotations

import pickle

import pytest
import torch
from conftest import make_base
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.text.template import SIDES, prompt_for
from antiphon.training.losses import content_collator
from antiphon.training.losses.collating import contents

TEXTS = ["plain words", "", " a leading space", "a </s> and a <s>, typed", "one\n\ntwo  three", "long words " * 60]
CASES = [
    ("classical", "last"),  # stock, a prefix
    ("echo-rewrite", "last"),  # stock, baked
    ("eol", "last"),  # stock, baked, a slot without a space
    ("echo", "last"),
    ("classical", "mean"),
    ("echo-rewrite", "mean"),
    ("echo-matched", "mean"),
    ("{text}", "mean"),
]


def occurrences(needle, haystack):
    return sum(haystack[at : at + len(needle)] == needle for at in range(len(haystack) - len(needle) + 1))


@pytest.mark.parametrize("kind", ["byte-level", "metaspace", "legacy"])
@pytest.mark.parametrize(("template", "pooling"), CASES)
def test_targets_are_what_the_encoder_read(tmp_path, template, pooling, kind):
    base = make_base(tmp_path / "base", tokenizer=kind)
    model = antiphon.build(base, template, pooling=pooling, max_tokens=200, device="cpu")
    copies = 2 if "echo" in template else 1
    for side in SIDES:
        prompt = prompt_for(model, "find it" if template in ("classical", "echo") else "", side)
        features = model.preprocess(TEXTS, prompt=prompt, task=side)
        rows = contents(model, TEXTS, prompt=prompt, side=side)
        for text, row, ids, mask in zip(TEXTS, rows, features["input_ids"], features["attention_mask"], strict=True):
            read = ids[mask.bool()].tolist()
            assert (row == []) == (text == "")
            assert text == "" or occurrences(row, read) == copies, text
        overhead = sum(features["attention_mask"][TEXTS.index("")].tolist())
        overhead -= prompt.endswith(" ") and not hasattr(model[0], "template")  # a prefix's last space joins the text
        longest = sum(features["attention_mask"][-1].tolist())
        assert len(rows[-1]) == (longest - overhead) / copies  # cut exactly where the encoder cuts
        assert len(rows[-1]) < 200
        assert not {1, 2} & {token for row in rows for token in row}  # what users type is never BOS or EOS


def test_keys_of_a_batch(tiny_base):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, device="cpu")
    rows = [{"anchor": "one", "positive": "two or three"}, {"anchor": "longer one", "positive": "four"}]
    batch = content_collator(model)(rows)
    ours = [key for key in batch if "content" in key]
    assert ours == [f"{column}_content_{part}" for column in ("anchor", "positive") for part in ("ids", "mask")]
    assert not any(key.endswith("input_ids") for key in ours)
    mask = batch["anchor_content_mask"]
    assert torch.equal(mask, mask.sort(dim=1, descending=True).values)  # right-padded
    assert mask.sum(dim=1).tolist() == [
        len(row) for row in contents(model, ["one", "longer one"], prompt="", side="query")
    ]


def test_prompts_and_tasks_of_the_arguments_are_heard(tiny_base, tmp_path):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=40, device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        prompts={"anchor": "find the long one"},
        router_mapping={"anchor": "query", "positive": "document"},
        report_to=[],
    )
    batch = content_collator(model, arguments)([{"anchor": TEXTS[-1], "positive": TEXTS[-1]}])
    wanted = [
        contents(model, [TEXTS[-1]], prompt=prompt, side=side)[0]
        for prompt, side in (("find the long one", "query"), ("", "document"))
    ]
    assert len(wanted[0]) < len(wanted[1])  # the instruction takes its room
    assert [batch[f"{column}_content_ids"][0].tolist() for column in ("anchor", "positive")] == wanted


def test_the_trainer_still_sees_two_columns(tiny_base, tmp_path):
    model = antiphon.build(tiny_base, "echo", pooling="last", max_tokens=64, device="cpu")
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, features, labels=None):
            seen.append(features)
            return sum(parameter.sum() for parameter in model.parameters()) * 0

    SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
        ),
        train_dataset=Dataset.from_dict({"anchor": ["a", "b"], "positive": ["c", "d"]}),
        loss=Spy(),
        data_collator=content_collator(model),
    ).train()
    (features,) = seen
    assert len(features) == 2
    assert all({"content_ids", "content_mask", "input_ids", "pool_mask"} <= set(part) for part in features)


def test_a_worker_process_can_have_it(tiny_base):
    model = antiphon.build(tiny_base, "echo", pooling="last", max_tokens=64, device="cpu")
    rows = [{"anchor": "a", "positive": "b"}]
    copied = pickle.loads(pickle.dumps(content_collator(model)))
    assert torch.equal(copied(rows)["anchor_content_ids"], content_collator(model)(rows)["anchor_content_ids"])


def test_clear_errors(tiny_base):
    stock = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=32, device="cpu")
    with pytest.raises(ConfigError, match="leaves no room"):
        contents(stock, ["x"], prompt="word " * 40, side="query")
    with pytest.raises(DataError, match="must be strings"):
        contents(stock, [3], prompt="", side="query")
