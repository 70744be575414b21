"""Where two models differ, the cause is named: each is made on purpose, and every time another one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from http_servers import JsonHandler, starting
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tokenizers.processors import TemplateProcessing

import antiphon
from antiphon.cli import main
from antiphon.errors import DataError, ParityError
from antiphon.model import variants
from antiphon.model.causes import diagnose
from antiphon.model.dialects import candidates
from antiphon.model.parity import compare, encode, unlike_texts
from antiphon.model.server import Server, is_url
from antiphon.model.variants import Variant

PROMPT = "Find the answer"


@pytest.fixture(scope="module")
def model(tiny_base):
    prompts = {"query": PROMPT}
    return antiphon.build(tiny_base, "classical", pooling="last", max_tokens=200, dtype="float32", prompts=prompts)


@pytest.fixture(scope="module")
def slots(tiny_base):
    return antiphon.build(tiny_base, "echo", max_tokens=200, dtype="float32", prompts={"query": PROMPT})


def without_eos(other):
    backend = other[0].tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])


def without_bos(other):
    backend = other[0].tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])


def without_prompt(other):
    other.prompts = {"query": "", "document": ""}


def with_mean(other):
    other[1] = Pooling(other.get_embedding_dimension(), pooling_mode="mean")


def cut_early(other):
    other.max_seq_length = 150


def in_bfloat16(other):
    other.to(torch.bfloat16)


SPOILERS = {
    "EOS": without_eos,
    "BOS": without_bos,
    "prompt": without_prompt,
    "pooling": with_mean,
    "truncation": cut_early,
}


@pytest.mark.parametrize("topic", SPOILERS)
def test_the_cause_is_named_and_no_other(model, topic):
    other = copy.deepcopy(model)
    SPOILERS[topic](other)
    found = diagnose(model, other, names=("mine", "theirs"))
    assert not found.parity.equal
    assert {cause.topic for cause in found.causes} == {topic}
    assert any(cause.sentence.startswith("theirs") for cause in found.causes)


@pytest.mark.parametrize("first", ["float32", "bfloat16"])
def test_rounding_is_no_difference_however_close_the_vectors_lie(first):
    model = antiphon.build("nano", "classical", pooling="last", max_tokens=96, dtype="float32")
    other = copy.deepcopy(model)
    in_bfloat16(other)
    error = compare(encode(model, unlike_texts()), encode(other, unlike_texts())).error_against_spread
    assert error > 5e-2  # a fixed bound would call it wrong
    found = diagnose(*((model, other) if first == "float32" else (other, model)), names=("mine", "theirs"))
    assert found.parity.equal
    assert "mine's own in bfloat16 moves" in found.notes[0]


def test_a_fault_in_16_bits_is_still_one(model):
    other = copy.deepcopy(model)
    without_eos(other)
    in_bfloat16(other)
    assert {cause.topic for cause in diagnose(model, other).causes} == {"EOS"}


def test_the_search_says_how_far_it_is(model):
    other = copy.deepcopy(model)
    with_mean(other)
    told = []
    diagnose(model, other, on_progress=lambda *at: told.append(at))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]


def test_the_cause_is_named_from_the_other_end(model):
    other = copy.deepcopy(model)
    without_eos(other)
    (cause,) = diagnose(other, model).causes
    assert cause.topic == "EOS"
    assert "B adds" in cause.sentence


def test_two_causes_together_are_named_as_two(model):
    other = copy.deepcopy(model)
    without_prompt(other)
    with_mean(other)
    topics = {cause.topic for cause in diagnose(model, other).causes}
    assert topics == {"prompt and pooling"}


def test_the_same_has_no_cause_and_length_of_vectors_is_a_note(model):
    other = copy.deepcopy(model)
    assert diagnose(model, other).notes == []
    other.append(Normalize())
    found = diagnose(model, other)
    assert found.parity.equal
    assert found.causes == []
    assert "normalisation: B" in found.notes[0]


def test_a_stranger_has_no_cause(model, metaspace_base):
    other = antiphon.build(metaspace_base, "eol", pooling="last", max_tokens=200, dtype="float32")
    found = diagnose(model, other)
    assert not found.parity.equal
    assert found.causes == []
    assert len(found.tested) > 5


def test_a_variant_that_changes_nothing_is_the_model(slots):
    texts = unlike_texts()
    for side in ("query", "document"):
        one_by_one = variants.encode(slots, texts, side, Variant(bos=True))
        assert compare(encode(slots, texts, side=side), one_by_one).equal
    assert slots.max_seq_length == 200


def test_a_variant_leaves_the_model_as_it_was(slots):
    texts = unlike_texts()
    before = encode(slots, texts)
    for variant in (Variant(dtype=torch.bfloat16), Variant(max_tokens=60, eos=False), Variant(pooling="mean")):
        variants.encode(slots, texts, "query", variant)
    assert np.array_equal(before, encode(slots, texts))


class Answering(JsonHandler):
    """An OpenAI-compatible server in a few lines; what it does is set on the class."""

    embed = refuse_above = status = None
    key = "secret"

    def do_GET(self):
        self.answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        asked = self.asked()
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            return self.answer({"error": "wrong key"}, 401)
        if self.refuse_above and max(map(len, asked["input"])) > self.refuse_above:
            return self.answer({"error": "too long"}, 413)
        rows = [{"index": n, "embedding": row.tolist()} for n, row in enumerate(type(self).embed(asked["input"]))]
        return self.answer({"data": rows[::-1]})  # the order is not promised


@pytest.fixture
def serve():
    with starting() as start:
        yield lambda embed, **settings: start(type("Handler", (Answering,), {"embed": staticmethod(embed), **settings}))


def test_a_server_that_is_right_one_that_loses_eos_and_one_that_refuses_long_texts(model, serve):
    right = Server(serve(lambda texts: encode(model, texts)), key="secret")
    assert diagnose(model, right).parity.equal
    other = copy.deepcopy(model)
    without_eos(other)
    wrong = Server(serve(lambda texts: encode(other, texts)) + "/v1/embeddings", key="secret")
    assert [cause.topic for cause in diagnose(model, wrong).causes] == ["EOS"]
    strict = Server(serve(lambda texts: encode(model, texts), refuse_above=500), key="secret")
    found = diagnose(model, strict)
    assert found.parity.equal
    assert "refuses" in found.notes[0]


def test_a_server_that_serves_the_document_side_is_told(slots, serve):
    address = serve(lambda texts: encode(slots, texts, side="document"))
    found = diagnose(slots, Server(address, "secret"))
    assert {cause.topic for cause in found.causes} == {"prompt"}
    assert "document" in found.causes[0].sentence
    assert diagnose(slots, Server(address, "secret"), side="document").parity.equal


def test_a_server_that_cannot_be_reached_or_lets_nobody_in(model, serve):
    with pytest.raises(ParityError, match="no answer that can be read"):
        diagnose(model, Server("http://127.0.0.1:9"))
    with pytest.raises(ParityError, match="answered 401"):
        diagnose(model, Server(serve(lambda texts: encode(model, texts))))
    with pytest.raises(DataError, match="too long"):
        Server(serve(lambda texts: [], refuse_above=1), key="secret").encode(["long text"])


def test_addresses():
    def roots(address):
        return [root + dialect.path for root, dialect in candidates(address)]

    assert roots("http://a:1")[:2] == ["http://a:1/v1/embeddings", "http://a:1/embeddings"]
    assert roots("http://a:1/") == roots("http://a:1")
    assert roots("http://a:1")[2:] == ["http://a:1/embed", "http://a:1/api/embed"]
    assert roots("http://a:1/v1")[0] == "http://a:1/v1/embeddings"
    assert roots("http://a:1/v1/embeddings") == ["http://a:1/v1/embeddings"]
    assert roots("http://a:1/embeddings") == ["http://a:1/embeddings"]
    assert roots("http://a:1/api/embed") == ["http://a:1/api/embed"]
    assert is_url("https://a")
    assert not is_url("a/b")


def test_the_command_names_the_cause_and_ends_with_one(model, tmp_path, capsys, monkeypatch, serve):
    folder = antiphon.save(model, tmp_path / "mine")
    other = copy.deepcopy(model)
    with_mean(other)
    theirs = tmp_path / "theirs"
    other.save(str(theirs), create_model_card=False)
    assert ended(["parity", str(folder), str(theirs)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("NOT equal")  # before the cause is looked for
    assert "cause: pooling: B pools mean" in out
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert ended(["parity", str(folder), serve(lambda texts: encode(model, texts))]) == 0
    assert capsys.readouterr().out.startswith("equal")


def ended(arguments):
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0
