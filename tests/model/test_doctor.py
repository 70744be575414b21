"""Endpoints made wrong on purpose, one fault each: the doctor names it first; right ones are told so."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from http_servers import JsonHandler, starting

import antiphon
from antiphon.cli import main
from antiphon.errors import DataError
from antiphon.model import parity, variants
from antiphon.model.causes import too_long
from antiphon.model.doctor import Folder, examine
from antiphon.model.rounding import Rounding
from antiphon.model.server import Server
from antiphon.model.variants import Variant

QUERY = "Given a question, find the answer"
CHAT = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "classical", prompts={"query": QUERY}, pooling="last", max_tokens=96)


@pytest.fixture(scope="module")
def models(model, tiny_base):
    """The right models, by what the faults need."""
    echo = antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=96)
    chatty = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=96)
    chatty.tokenizer.chat_template = CHAT
    calibrated = antiphon.calibrate(model, parity.unlike_texts())
    span = antiphon.build(tiny_base, "echo-rewrite", pooling="mean", max_tokens=96)
    return {"plain": model, "echo": echo, "chatty": chatty, "calibrated": calibrated, "span": span}


@pytest.fixture(scope="module", autouse=True)
def remembered():
    """What a model makes of a text in a variant, which every examination asks for anew, is computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "_vector", cache(variants._vector))
        yield


class Endpoint:
    """Gives what a function makes of texts."""

    def __init__(self, encode):
        self.encode = lambda texts: np.asarray(encode(list(texts)), dtype=np.float32)


def changed(model, **variant):
    return lambda texts: unit(variants.encode(model, texts, "query", Variant(**variant)))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def right(model):
    return lambda texts: unit(parity.encode(model, texts))


def beside(model):
    """Each vector has some of the longest text's, as where padding is not masked."""

    def encode(texts):
        vectors = right(model)(texts)
        return (
            unit(vectors + vectors[max(range(len(texts)), key=lambda n: len(texts[n]))]) if len(texts) > 1 else vectors
        )

    return encode


def noisy(model):
    draw = np.random.default_rng(0)
    return lambda texts: unit(right(model)(texts) + draw.normal(size=(len(texts), 32)) * 0.1)


def other_weights(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return right(other)


def coarse(model):
    """Weights of about four bits."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            step = parameter.abs().max() / 100
            parameter.copy_((parameter / step).round() * step)
    return right(other)


def other_tokenizer(model):
    """Reads what a user types with every other letter a token of its own."""
    return lambda texts: right(model)(["".join(letter + "\u200b" for letter in text) for text in texts])


def swapped(model):
    return lambda texts: right(model)(texts)[::-1]


FAULTS = {
    "loses EOS": ("plain", lambda m: changed(m, eos=False), "EOS"),
    "loses BOS": ("plain", lambda m: changed(m, bos=False), "BOS"),
    "says BOS twice": ("plain", lambda m: changed(m, bos=2), "BOS"),
    "pools the mean": ("plain", lambda m: changed(m, pooling="mean"), "pooling"),
    "pools the first": ("plain", lambda m: changed(m, pooling="first"), "alike"),
    "pools weighted": ("plain", lambda m: changed(m, pooling="weighted_mean"), "pooling"),
    "passes over our pooling": ("span", lambda m: changed(m, pooling="last"), "pooling"),
    "leaves the prompt out": ("plain", lambda m: changed(m, prompt=""), "prompt"),
    "no prompt and no EOS": ("plain", lambda m: changed(m, prompt="", eos=False), "EOS and prompt"),
    "mean and no prompt": ("plain", lambda m: changed(m, prompt="", pooling="mean"), "prompt and pooling"),
    "no template": ("echo", lambda m: changed(m, reading="bare"), "template"),
    "no template and no EOS": ("echo", lambda m: changed(m, reading="bare", eos=False), "EOS and template"),
    "a chat": ("chatty", lambda m: changed(m, reading="chat"), "template"),
    "no Dense": ("calibrated", lambda m: changed(m, dense=False), "Dense"),
    "cuts texts at 64": ("plain", lambda m: changed(m, max_tokens=64), "truncation"),
    "cuts texts at 50": ("plain", lambda m: changed(m, max_tokens=50), "truncation"),
    "cuts the second copy": ("echo", lambda m: changed(m, sequence=96), "truncation"),
    "cuts at the beginning": ("echo", lambda m: changed(m, sequence=-96), "truncation"),
    "cuts long texts at 150": ("echo", lambda m: changed(m, sequence=150), "truncation"),
    "lower case": ("plain", lambda m: changed(m, text="lowered"), "letter case"),
    "not of length 1": ("plain", lambda m: lambda texts: 7 * right(m)(texts), "normalisation"),
    "always the same": ("plain", lambda m: lambda texts: np.ones((len(texts), 32)), "alike"),
    "zero": ("plain", lambda m: lambda texts: np.zeros((len(texts), 32)), "numbers"),
    "no numbers": ("plain", lambda m: lambda texts: np.full((len(texts), 32), np.nan), "numbers"),
    "companions": ("plain", beside, "companion"),
    "answers in another order": ("plain", swapped, "companion"),
    "at random": ("plain", noisy, "repeated"),
    "half the dimensions": ("plain", lambda m: lambda texts: unit(right(m)(texts)[:, :16]), "dimensions"),
    "other weights": ("plain", other_weights, "weights"),
    "other tokenizer": ("plain", other_tokenizer, "tokenizer"),
    "weights of four bits": ("plain", coarse, "dtype"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_server_is_named_first(name, models, serve):
    which, make, topic = FAULTS[name]
    server = Server(serve(make(models[which]), ids=by_ids(models[which]) if topic == "tokenizer" else None))
    outcome = examine(server, models[which], engine=server.engine)
    assert not outcome.healthy
    assert outcome.findings[0].topic == topic, outcome.findings
    assert outcome.findings[0].remedy


@pytest.mark.parametrize("which", ["plain", "echo"])
def test_an_engine_whose_files_hold_no_template_is_right_where_it_is_so_by_ids(which, models, serve):
    own = models[which]
    lost = changed(own, reading="bare") if which == "echo" else changed(own, prompt="")
    server = Server(serve(lost, ids=by_ids(own), owner="llamacpp"))
    outcome = examine(server, own, engine=server.engine)
    told = {found.topic: found for found in outcome.findings}
    assert outcome.healthy, outcome.findings
    assert told["model"].sentence.startswith("given token ids, as the model: equal")
    assert "sent as a string, a text gets another vector: the endpoint" in told["strings"].sentence
    assert "antiphon serve MODEL --upstream URL" in told["strings"].remedy


@pytest.mark.parametrize(
    ("fault", "by", "topic"),
    [({"eos": False}, "plain", "EOS"), ({"reading": "bare", "pooling": "mean"}, "coarse", "template and pooling")],
)
def test_such_an_engine_is_wrong_in_what_its_files_do_hold(fault, by, topic, models, serve):
    own = models["echo" if "reading" in fault else "plain"]
    ids = by_ids(own) if by == "plain" else lambda rows: np.ones((len(rows), 32)) + np.arange(len(rows))[:, None]
    server = Server(serve(changed(own, **fault), ids=ids, owner="llamacpp"))
    outcome = examine(server, own, engine=server.engine)
    assert not outcome.healthy
    assert set(outcome.findings[0].topic.split(" and ")) == set(topic.split(" and "))


def test_other_weights_are_no_known_cause(model):
    outcome = examine(Endpoint(other_weights(model)), model)
    assert outcome.findings[0].topic == "weights"
    assert "by no known cause; nearest comes" in outcome.findings[0].sentence


@pytest.mark.parametrize("dialect", ["openai", "bare", "tei", "ollama"])
@pytest.mark.parametrize("which", ["plain", "echo", "calibrated"])
def test_a_right_server_is_told_so_whatever_it_speaks(dialect, which, models, serve):
    outcome = examine(Server(serve(right(models[which]), dialect=dialect)), models[which])
    assert outcome.healthy, outcome.findings


@pytest.mark.parametrize("which", ["plain", "echo", "calibrated"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_right_endpoint_is_told_so_in_16_bits_too(models, which, dtype):
    model = models[which]
    outcome = examine(Endpoint(changed(model, dtype=dtype) if dtype else right(model)), model)
    assert outcome.healthy, outcome.findings
    told = {found.topic: found.sentence for found in outcome.findings}
    assert told["model"].startswith("as the model")
    size = f"in 16 bits (by the error's size {str(dtype).removeprefix('torch.')})"
    assert (size in told["model"]) == (dtype is not None)


def test_an_engine_that_rounds_its_own_way_is_not_called_by_a_finer_dtype():
    """Two roundings to bfloat16 are farther from one another than each from the exact vectors."""
    draw = np.random.default_rng(0)
    whole = draw.normal(size=(40, 64)).astype(np.float32)
    ours, theirs = (whole + 0.05 * draw.normal(size=whole.shape).astype(np.float32) for _ in range(2))
    fine = whole + 0.005 * draw.normal(size=whole.shape).astype(np.float32)
    rounding = Rounding(whole, {"bfloat16": ours, "float16": fine})
    error = parity.compare(whole, theirs).error_against_spread
    assert error < parity.compare(ours, theirs).error_against_spread
    assert rounding.likely(error) == "bfloat16"
    assert rounding.likely(error / 10) == "float16"


def test_a_long_text_that_the_models_own_rounding_moves_is_no_fault(model, monkeypatch):
    """A model in 16 bits is off on it by more than on short texts; the endpoint has the vectors of float32."""
    whole = parity.encode

    def rounded(asked, texts, **named):
        found = whole(asked, texts, **named)
        return unit(found + 0.01) if list(texts) == too_long(model, "query") else found

    monkeypatch.setattr(parity, "encode", rounded)
    outcome = examine(Endpoint(lambda texts: unit(whole(model, texts))), model)
    assert outcome.healthy, outcome.findings


def test_without_a_model_it_says_what_can_be_told(model):
    outcome = examine(Folder(model))
    told = {found.topic: found.sentence for found in outcome.findings}
    assert "white space at the end of a text is read" in told["white space"]
    assert "what follows is cut" in told["length"]
    for name in ("not of length 1", "always the same", "companions", "at random", "answers in another order"):
        _, make, topic = FAULTS[name]
        assert examine(Endpoint(make(model))).findings[0].topic == topic


def test_what_is_refused_and_what_is_taken_off_is_said(tiny_base):
    model = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=500)

    def encode(texts):
        if any(len(text.split()) > 100 for text in texts):
            raise DataError("too long")
        return right(model)([text.strip() for text in texts])

    told = {found.topic: found for found in examine(Endpoint(encode)).findings}
    assert not any(found.wrong for found in told.values())
    assert told["length"].sentence == "a text of 128 words is refused: too long"
    assert told["white space"].sentence.endswith("taken off")


def by_ids(model):
    """What the right weights give for ids."""

    def encode(rows):
        with torch.inference_mode():
            features = [
                model({"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row)).long()})
                for row in rows
            ]
        return unit(np.stack([one["sentence_embedding"][0].float().numpy() for one in features]))

    return encode


@pytest.fixture
def serve():
    """Start small servers, each in a dialect of its own."""

    def start(encode, *, ids=None, dialect="openai", owner="vllm"):
        listed = {"data": [{"id": "it", "owned_by": owner}]}
        about = {
            "openai": {"/v1/models": listed},
            "bare": {"/models": listed},
            "tei": {"/info": {"model_id": "it", "max_input_length": 512}},
            "ollama": {"/api/tags": {"models": [{"name": "it"}]}},
        }[dialect]
        paths = {"openai": "/v1/embeddings", "bare": "/embeddings", "tei": "/embed", "ollama": "/api/embed"}

        class Handler(JsonHandler):
            def do_GET(self):
                found = about.get(self.path)
                self.answer(found or {"error": "nothing here"}, 200 if found else 404)

            def do_POST(self):
                asked = self.asked()
                if self.path != paths[dialect]:
                    return self.answer({"error": "nothing here"}, 404)
                given = asked["inputs" if dialect == "tei" else "input"]
                if isinstance(given[0], list):
                    if ids is None:
                        return self.answer({"error": "strings are wanted"}, 422)
                    rows = ids(given).tolist()
                else:
                    rows = np.asarray(encode(given), dtype=np.float32).tolist()
                data = [{"index": number, "embedding": row} for number, row in enumerate(rows)]
                self.answer({"tei": rows, "ollama": {"embeddings": rows}}.get(dialect, {"data": data}))

        return listening(Handler)

    with starting() as listening:
        yield start


def test_the_command_line_gives_the_verdict_first_and_the_engines_remedy(serve, model, tmp_path, capsys):
    address = serve(changed(model, pooling="mean"))
    folder = antiphon.save(model, tmp_path / "saved")
    with pytest.raises(SystemExit) as end:
        main(["doctor", address, "--model", str(folder)])
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("WRONG      pooling: the endpoint pools mean over all tokens")
    assert "vllm serve" in lines[1]
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(folder), "--model", str(folder)])
    assert end.value.code in (None, 0)
    assert capsys.readouterr().out.startswith("right")
