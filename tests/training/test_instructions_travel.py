"""What was trained is what is said: the instructions of the data are the saved model's prompts."""

from __future__ import annotations

import json

import pytest
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

import antiphon
from antiphon.errors import ConfigError
from antiphon.model.prompts import instruct, prompt_of

ASKED = "Given a question, find the page that answers it"
PAGES = [(f"question number {n}", f"page {n} answers it") for n in range(8)]


@pytest.fixture
def pairs(tmp_path):
    def write(name: str) -> str:
        path = tmp_path / f"{name}.jsonl"
        rows = (json.dumps({"query": query, "positive": page}) for query, page in PAGES)
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return str(path)

    return write


def recipe(tiny_base, tmp_path, sets, **model):
    return {
        "name": "travel",
        "out": str(tmp_path / "run"),
        "model": {"base": str(tiny_base), "template": "echo", "pooling": "last", "max_tokens": 128, **model},
        "data": {"sets": sets},
        "stage": [{"name": "one", "loss": "contrastive", "steps": 2, "batch_size": 4}],
    }


@pytest.mark.parametrize(("template", "pooling"), [("echo", "last"), ("echo", "mean"), ("classical", "last")])
def test_the_tokens_of_training_are_those_of_encode_query(tiny_base, tmp_path, pairs, monkeypatch, template, pooling):
    seen: list[dict] = []
    collate = SentenceTransformerDataCollator.__call__

    def spied(self, rows):
        batch = collate(self, rows)
        seen.append(batch)
        return batch

    monkeypatch.setattr(SentenceTransformerDataCollator, "__call__", spied)
    sets = [{"name": "pages", "source": pairs("pages"), "instruction": ASKED}]
    content = recipe(tiny_base, tmp_path, sets, template=template, pooling=pooling)
    content["stage"][0] |= {"loss": "reconstruction"}
    model = antiphon.load(antiphon.train(content))
    assert ASKED in prompt_of(model, "query")
    prompts = {side: prompt_of(model, side) for side in ("query", "document")}
    said = {
        side: {tuple(row) for row in unpadded(model.preprocess(list(texts), prompt=prompts[side] or None, task=side))}
        for side, texts in zip(prompts, zip(*PAGES, strict=True), strict=True)
    }
    trained = {
        side: {tuple(row) for batch in seen for row in unpadded(batch, f"{column}_")}
        for side, column in (("query", "anchor"), ("document", "positive"))
    }
    assert all(trained[side] and trained[side] <= said[side] for side in trained)


def unpadded(features, column=""):
    both = zip(features[f"{column}input_ids"], features[f"{column}attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in both]


def test_several_instructions_have_the_names_of_their_sets_and_the_largest_is_the_querys(tiny_base, tmp_path, pairs):
    sets = [
        {"name": "small", "source": pairs("small"), "instruction": "Find the small", "cap": 4},
        {"name": "large", "source": pairs("large"), "instruction": ASKED},
    ]
    run = antiphon.train(recipe(tiny_base, tmp_path, sets))
    model = antiphon.load(run)
    assert model.prompts == {"query": ASKED, "document": "", "small": "Find the small", "large": ASKED}
    recorded = json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"][0]["prompts"]
    assert recorded == {"query": ASKED, "small": "Find the small", "large": ASKED}


def test_the_recipes_prompts_are_said_in_training_and_afterwards(tiny_base, tmp_path, pairs):
    sets = [{"name": "pages", "source": pairs("pages")}]
    model = antiphon.load(antiphon.train(recipe(tiny_base, tmp_path, sets, prompts={"query": "Answer me"})))
    assert model.prompts["query"] == "Answer me"


def test_an_instruction_that_training_cannot_say_is_told(tiny_base, tmp_path, pairs, caplog):
    sets = [{"name": "pages", "source": pairs("pages"), "instruction": ASKED}]
    run = antiphon.train(recipe(tiny_base, tmp_path, sets, template="echo-rewrite"))
    told = "The set pages is trained without its instruction"
    assert any(told in record.getMessage() for record in caplog.records)
    assert antiphon.load(run).prompts == {"query": "", "document": ""}


def test_an_instruction_without_a_place_is_a_sentence(tiny_base):
    model = antiphon.build(tiny_base, "echo-rewrite", max_tokens=128)
    with pytest.raises(ConfigError, match="slot on the query side"):
        instruct(model, {"query": "Find it"})
