"""Which prompt a side gets, and that every verb gives the same answer."""

from __future__ import annotations

import numpy as np
import pytest

import antiphon
from antiphon.corpus.neighbours import VectorSource
from antiphon.errors import ConfigError
from antiphon.evaluation.instructions import prompts_for
from antiphon.exporting.readings import readings
from antiphon.model.description import describe
from antiphon.model.prompts import PROMPT_NAMES, instruct, prompt_name_of, prompt_of, side_of
from antiphon.serving.served_model import ServedModel

TEXTS = ["one text", "a second, longer text"]
INSTRUCTED = {"query": "Find the function", "document": "Find the caller"}


@pytest.fixture(scope="module", params=["slots", "prefix", "passage", "default"])
def model(request, tiny_base):
    """Models that keep their prompts in each of the ways that sentence-transformers knows."""
    if request.param == "slots":
        both = "About {prompt}: [{text}]"
        return antiphon.build(tiny_base, both, prompts=INSTRUCTED)
    built = antiphon.build(tiny_base, "classical", pooling="last", prompts={"query": "Find the function"})
    if request.param == "passage":
        built.prompts = {"query": "query: ", "passage": "passage: "}
    if request.param == "default":
        built.prompts, built.default_prompt_name = {"house": "In the house: "}, "house"
    return built


@pytest.mark.parametrize("side", ["query", "document"])
def test_the_prompt_is_what_sentence_transformers_says_by_itself(model, side):
    verb = model.encode_query if side == "query" else model.encode_document
    np.testing.assert_allclose(verb(TEXTS), model.encode(TEXTS, prompt=prompt_of(model, side), task=side), atol=1e-6)
    name = prompt_name_of(model, side)
    assert prompt_of(model, side, prompt_name=name) == prompt_of(model, side)


@pytest.mark.parametrize("side", ["query", "document"])
def test_show_evaluate_mine_serve_and_export_say_the_same(model, side):
    prompt = prompt_of(model, side)
    assert describe(model, "a text", side=side).prompt == prompt
    assert prompts_for(model, "", own=True)[side] == prompt
    encoder = antiphon.Encoder(model)
    assert VectorSource(encoder, side).prompt == prompt
    own = model.encode(TEXTS, prompt=prompt, task=side, normalize_embeddings=True)
    np.testing.assert_allclose(VectorSource(encoder, side)(TEXTS), own, atol=1e-5)
    served = ServedModel(model)
    np.testing.assert_allclose(served.encode(TEXTS, served.reading(side, None)), own, atol=1e-5)
    assert prompt in {one.prompt for one in readings(model)}


def test_a_name_that_there_is_not_is_a_sentence(tiny_base):
    model = antiphon.build(tiny_base, "classical")
    with pytest.raises(ConfigError, match="no prompt named 'nothing'; it has document, query"):
        prompt_of(model, "query", prompt_name="nothing")


@pytest.mark.parametrize(("template", "side"), [("eol", "query"), ("classical", "document"), (None, "document")])
@pytest.mark.parametrize("words", ["Find the caller", ""])
def test_an_instruction_is_said_or_refused_and_never_dropped(tiny_base, template, side, words):
    model = antiphon.build(tiny_base, template or "classical", pooling="last")
    if template is None:  # one of others: a Transformer and a Pooling that know of no template
        del model[0].template_spec
        model.prompts = {"query": "Instruct: \nQuery: ", "document": "passage: "}
    before = prompt_of(model, side)
    if not words:
        instruct(model, {side: words})
        assert prompt_of(model, side, instruction=words) == prompt_of(model, side)
        return
    for verb in (lambda: instruct(model, {side: words}), lambda: prompt_of(model, side, instruction=words)):
        with pytest.raises(ConfigError, match=f"on the {side} side"):
            verb()
    assert prompt_of(model, side) == before


def test_a_model_of_others_keeps_its_form_around_a_querys_instruction(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last")
    del model[0].template_spec
    model.prompts = {"query": "Instruct: something\nQuery:"}
    instruct(model, {"query": "Find the caller"})
    assert prompt_of(model, "query") == "Instruct: Find the caller\nQuery:"


def test_names_stand_for_sides():
    assert {name: side_of(name) for names in PROMPT_NAMES.values() for name in names} == {
        "query": "query",
        "document": "document",
        "passage": "document",
        "corpus": "document",
    }
    assert side_of("house") is None
