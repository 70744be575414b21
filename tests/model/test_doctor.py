"""Endpoints made wrong on purpose, one fault each: the doctor names it first; right ones are told so."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

import antiphon
from antiphon.cli import main
from antiphon.errors import DataError
from antiphon.model import parity, variants
from antiphon.model.doctor import Folder, examine
from antiphon.model.variants import Variant

QUERY = "Given a question, find the answer"


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "classical", prompts={"query": QUERY}, pooling="last", max_tokens=96)


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


def other_weights(tiny_base):
    model = antiphon.build(tiny_base, "classical", prompts={"query": QUERY}, pooling="last", max_tokens=96)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return right(model)


def swapped(model):
    return lambda texts: right(model)(texts)[::-1]


FAULTS = {
    "loses EOS": (lambda m: changed(m, eos=False), "EOS"),
    "loses BOS": (lambda m: changed(m, bos=False), "BOS"),
    "pools the mean": (lambda m: changed(m, pooling="mean"), "pooling"),
    "pools the first": (lambda m: changed(m, pooling="first"), "alike"),
    "pools weighted": (lambda m: changed(m, pooling="weighted_mean"), "pooling"),
    "leaves the prompt out": (lambda m: changed(m, prompt=""), "prompt"),
    "no prompt and no EOS": (lambda m: changed(m, prompt="", eos=False), "EOS and prompt"),
    "mean and no prompt": (lambda m: changed(m, prompt="", pooling="mean"), "prompt and pooling"),
    "cuts at 64": (lambda m: changed(m, max_tokens=64), "truncation"),
    "not of length 1": (lambda m: lambda texts: 7 * right(m)(texts), "normalisation"),
    "always the same": (lambda m: lambda texts: np.ones((len(texts), 32)), "alike"),
    "zero": (lambda m: lambda texts: np.zeros((len(texts), 32)), "numbers"),
    "no numbers": (lambda m: lambda texts: np.full((len(texts), 32), np.nan), "numbers"),
    "companions": (beside, "companion"),
    "answers in another order": (swapped, "companion"),
    "at random": (noisy, "repeated"),
    "half the dimensions": (lambda m: lambda texts: unit(right(m)(texts)[:, :16]), "dimensions"),
    "lower case": (lambda m: lambda texts: right(m)([text.lower() for text in texts]), "weights"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_first(name, model):
    make, topic = FAULTS[name]
    outcome = examine(Endpoint(make(model)), model)
    assert not outcome.healthy
    assert outcome.findings[0].topic == topic, outcome.findings
    assert outcome.findings[0].remedy


def test_other_weights_are_no_known_cause(model, tiny_base):
    outcome = examine(Endpoint(other_weights(tiny_base)), model)
    assert outcome.findings[0].topic == "weights"
    assert "by no known cause; nearest comes" in outcome.findings[0].sentence


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_right_endpoint_is_told_so_in_16_bits_too(model, dtype):
    outcome = examine(Endpoint(changed(model, dtype=dtype) if dtype else right(model)), model)
    assert outcome.healthy, outcome.findings
    told = {found.topic: found.sentence for found in outcome.findings}
    assert told["model"].startswith("as the model")
    assert ("in 16 bits" in told["model"]) == (dtype is not None)


def test_without_a_model_it_says_what_can_be_told(model):
    outcome = examine(Folder(model))
    told = {found.topic: found.sentence for found in outcome.findings}
    assert "white space at the end of a text is heard" in told["white space"]
    assert "what follows is cut" in told["length"]
    for name in ("not of length 1", "always the same", "companions", "at random", "answers in another order"):
        make, topic = FAULTS[name]
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


@pytest.fixture
def address(model):
    """A server with OpenAI's API that calls itself vLLM and pools the mean."""
    encode = changed(model, pooling="mean")

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer({"data": [{"id": "it", "owned_by": "vllm"}]})

        def do_POST(self):
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            rows = encode(texts).tolist()
            self.answer({"data": [{"index": number, "embedding": row} for number, row in enumerate(rows)]})

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_command_line_gives_the_verdict_first_and_the_engines_remedy(address, model, tmp_path, capsys):
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
