"""Evaluation as LLM2Vec and Anchor do it: their instructions, their separator, their cut, and a look before it runs."""

from __future__ import annotations

import json

import evaluation_data as data
import numpy as np
import pytest
from published_data import GOLDEN, MODELS, golden
from transformers import AutoTokenizer

import antiphon
from antiphon.cli import main
from antiphon.evaluation import evaluate
from antiphon.evaluation.instructions import instruction_for, read, separated, shipped
from antiphon.evaluation.task_strings import task_strings
from antiphon.evaluation.text_cut import cut_words
from antiphon.text.template import TEMPLATES, Template
from antiphon.text.tokens import PieceTokenizer

STS = "Retrieve semantically similar text"
DUPLICATES = (
    "Given a question, retrieve detailed question descriptions from Stackexchange that are duplicates to the given "
    "question"
)
PUBLISHED = {
    **dict.fromkeys(
        ["STS12", "STS13", "STS14", "STS15", "STS16", "STS17", "STS22", "BIOSSES", "SICK-R", "STSBenchmark"], STS
    ),
    "SummEval": "Given a news summary, retrieve other semantically similar summaries",
    "AmazonCounterfactualClassification": "Classify a given Amazon customer review text as either counterfactual or "
    "notcounterfactual",
    **{
        f"CQADupstack{part}Retrieval": DUPLICATES
        for part in [
            "Tex",
            "Webmasters",
            "English",
            "Gaming",
            "Gis",
            "Unix",
            "Mathematica",
            "Stats",
            "Physics",
            "Programmers",
            "Android",
            "Wordpress",
        ]
    },
}


def test_the_instructions_that_differed_are_the_published_ones():
    assert {task: shipped()[task] for task in PUBLISHED} == PUBLISHED
    assert instruction_for("CQADupstackRetrieval", None, None) == DUPLICATES


@pytest.mark.parametrize(
    ("template", "given", "expected"),
    [
        ("llm2vec", "Find the claim:", "Find the claim:"),
        ("llm2vec", "Find the claim: ", "Find the claim:"),
        ("anchor", "Find the claim.", "Find the claim:"),
        ("echo", "Find the claim:", "Find the claim"),
        ("classical", "Find the claim", "Find the claim"),
        (Template("own", "{prompt}; [{text}]"), "Find the claim", "Find the claim"),
        (Template("own", "{prompt}; [{text}]"), "Find the claim:", "Find the claim:"),
        ("llm2vec", "", ""),
    ],
)
def test_a_colon_at_the_end_is_the_separator_where_one_is_wanted(template, given, expected):
    assert separated(given, TEMPLATES.get(template, template)) == expected


def test_a_file_of_their_layout_is_heard_as_they_say_it(tiny_base, tmp_path):
    words, folder = tmp_path / "task_to_instructions.json", data.beir(tmp_path / "search")
    words.write_text(json.dumps({"search": "Given a claim, find documents that refute the claim:"}))
    claim = "Given a claim, find documents that refute the claim"
    spoken = {
        "llm2vec": (f"{claim}: {{text}}", "{text}"),
        "anchor": (
            f"<|start_header_id|>user<|end_header_id|>\n\n{claim}: {{text}}<|eot_id|>",
            "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
        ),
        "echo": (
            f"Instruct: {claim},\nQuery: {{text}}\nQuery again: {{text}}",
            "Document: {text}\nDocument again: {text}",
        ),
        "classical": (f"Instruct: {claim},\nQuery: {{text}}", "Document: {text}"),
    }
    for template, (query, passage) in spoken.items():
        for pooling in ("mean", "last"):
            model = antiphon.build(tiny_base, template, pooling=pooling, max_tokens=96, dtype="float32")
            (found,) = task_strings(model, folder, instructions=words)
            assert (found.query, found.passage) == (query, passage)
    assert read(words)["search"].endswith(":")


def test_a_dry_run_prints_the_strings_and_scores_nothing(tiny_base, tmp_path, capsys):
    words, folder, pairs = tmp_path / "words.json", data.beir(tmp_path / "search"), tmp_path / "alike.tsv"
    pairs.write_text("sentence1\tsentence2\tscore\n" + "".join(f"a {n}\tb {n}\t{n}\n" for n in range(12)))
    words.write_text(json.dumps({"search": "Find it:", "alike": "Find text alike:"}))
    out = tmp_path / "scores"
    with pytest.raises(SystemExit) as ended:
        main([
            "evaluate", str(tiny_base), "--tasks", f"{folder},{pairs}", "--instructions", str(words), "--template",
            "llm2vec", "--max-tokens", "96", "--out", str(out), "--dry-run",
        ])  # fmt: skip
    said = capsys.readouterr().out
    assert not ended.value.code
    assert "'Find it: {text}'" in said
    assert "'Find text alike: {text}'" in said
    assert "every text is a query" in said
    assert not out.exists()


def test_a_cut_changes_scores_and_is_not_taken_for_the_whole(tiny_base, tmp_path):
    pairs = tmp_path / "alike.tsv"
    rows = [f"{n} {'word ' * 30}\t{n * n % 7} {'word ' * 30}{n}\t{n % 5}\n" for n in range(20)]
    pairs.write_text("sentence1\tsentence2\tscore\n" + "".join(rows))
    model = antiphon.build(tiny_base, "classical-write", pooling="mean", max_tokens=128, dtype="float32")
    whole, cut, again = (evaluate(model, pairs, cut=most, cache=tmp_path / "cache") for most in (None, 40, None))
    assert whole["alike"].main == again["alike"].main
    assert whole.revision == again.revision != cut.revision
    assert cut.settings["cut"] == 40
    shorter = tmp_path / "short" / "alike.tsv"
    shorter.parent.mkdir()
    pieces = PieceTokenizer(model.tokenizer)
    cells = [[cut_words(text, pieces, 40, longest=128) for text in row.strip().split("\t")] for row in rows]
    shorter.write_text("sentence1\tsentence2\tscore\n" + "".join("\t".join(row) + "\n" for row in cells))
    assert evaluate(model, shorter, cache=False)["alike"].main == pytest.approx(cut["alike"].main)


@golden
@pytest.mark.parametrize("folder", ["english-6m", "stories260K"])
def test_long_texts_are_cut_at_the_authors_words(folder):
    facts = json.loads((GOLDEN / "echo.json").read_text(encoding="utf-8"))
    key = "llm2vec|en6m|bi" if folder == "english-6m" else "llm2vec|stories|bi"
    wanted = json.loads((GOLDEN / "llm2vec_supervised.json").read_text(encoding="utf-8"))[key]
    pieces = PieceTokenizer(AutoTokenizer.from_pretrained(MODELS / folder))
    cut = [cut_words(text, pieces, 400) for text in facts["long_texts"]]
    lengths = [1 + len(row) for row in pieces.texts(cut, first=True)]
    assert lengths == wanted["enc_long_lengths"]
    assert np.diff([len(one) <= len(whole) for one, whole in zip(cut, facts["long_texts"], strict=True)]).sum() == 0
