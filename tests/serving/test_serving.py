"""The server's routes, in this process: vectors are the model's, wrong requests get the right answer and a sentence."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from starlette.testclient import TestClient

import antiphon
from antiphon import serving
from antiphon.errors import ConfigError, DataError
from antiphon.model.parity import compare, unlike_texts
from antiphon.serving.app import create_app
from antiphon.serving.input_texts import TextTokenizer
from antiphon.serving.server_settings import ServerSettings
from antiphon.serving.sockets import is_loopback

PROMPTS = {"query": "Find the answer", "code": "Find the function"}


def client_of(model, **options):
    app = create_app(model, ServerSettings(name="tiny", **options))
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo", prompts=PROMPTS, max_tokens=64)


@pytest.fixture(scope="module")
def client(model):
    with client_of(model) as opened:
        yield opened


def embed(client, given, **fields):
    answer = client.post("/v1/embeddings", json={"input": given, **fields})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return np.array([row["embedding"] for row in rows], dtype=np.float32)


def refusal(answer, status):
    """The one sentence of an answer in OpenAI's shape of an error."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    assert "\n" not in error["message"]
    return error["message"]


@pytest.mark.parametrize(
    ("fields", "offline"),
    [
        ({}, lambda m, t: m.encode(t)),
        ({"input_type": "query"}, lambda m, t: m.encode_query(t)),
        ({"input_type": "document"}, lambda m, t: m.encode_document(t)),
        ({"prompt_name": "code"}, lambda m, t: m.encode(t, prompt_name="code")),
        ({"prompt_name": "document"}, lambda m, t: m.encode_document(t)),
    ],
)
def test_vectors_are_those_of_the_model(client, model, fields, offline):
    served = embed(client, unlike_texts(), **fields)
    outcome = compare(served, offline(model, unlike_texts()))
    assert outcome.equal, str(outcome)
    assert np.allclose(np.linalg.norm(served, axis=1), 1, atol=1e-6)
    other = {"input_type": "query"} if fields.get("input_type") == "document" else {"input_type": "document"}
    if fields != {"prompt_name": "document"}:
        assert not compare(embed(client, unlike_texts(), **other), served).equal


def test_base64_is_the_same_numbers(client):
    body = {"input": unlike_texts()[:3], "encoding_format": "base64"}
    rows = client.post("/v1/embeddings", json=body).json()["data"]
    decoded = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows]
    assert np.array_equal(decoded, embed(client, unlike_texts()[:3]))


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_large_answers_are_whole(client, encoding_format):
    body = {"input": ["a", "b"] * 1024, "encoding_format": encoding_format}
    rows = client.post("/v1/embeddings", json=body).json()["data"]
    assert len(rows) == 2048
    assert rows[0]["embedding"] == rows[2046]["embedding"] != rows[1]["embedding"]


def test_dimensions_keep_the_first_ones_at_length_one(client):
    whole, cut = embed(client, unlike_texts()), embed(client, unlike_texts(), dimensions=8)
    assert cut.shape[1] == 8
    assert np.allclose(cut, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(embed(client, unlike_texts(), dimensions=whole.shape[1]), whole)


@pytest.mark.parametrize("base", ["tiny_base", "metaspace_base"])
@pytest.mark.parametrize(("template", "pooling"), [("echo-rewrite", "mean"), ("echo-rewrite", "last")])
def test_token_ids_are_the_text_that_they_were_made_of(base, template, pooling, request):
    folder = request.getfixturevalue(base)
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(folder)
    texts = [*unlike_texts(), "naïve 東京 🎶", "a  b\n c"]
    with client_of(antiphon.build(folder, template, pooling=pooling, max_tokens=64)) as client:
        strings = embed(client, texts)
        for special in (False, True):
            ids = [plain(text, add_special_tokens=special)["input_ids"] for text in texts]
            outcome = compare(embed(client, ids), strings)
            assert outcome.equal, str(outcome)
        assert np.allclose(embed(client, ids[0]), strings[:1], atol=1e-5)


def test_ids_of_another_tokenizer_are_refused(client, model, metaspace_base):
    from transformers import AutoTokenizer

    foreign = AutoTokenizer.from_pretrained(metaspace_base)
    ids = [foreign(text, add_special_tokens=False)["input_ids"] for text in unlike_texts()]
    for start in range(0, len(ids), 8):
        answer = client.post("/v1/embeddings", json={"input": ids[start : start + 8]})
        assert "check_embedding_ctx_length=False" in refusal(answer, 400)
    # even of single texts, for a vocabulary as small as this one
    alone = [client.post("/v1/embeddings", json={"input": row}).status_code for row in ids]
    assert alone.count(400) > len(ids) / 2
    with pytest.raises(DataError, match="100000 is none of this model's"):
        TextTokenizer(model).text([100_000])


def test_usage_counts_the_tokens_of_the_texts(client, tiny_base):
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(tiny_base)
    texts = unlike_texts()[:5]
    usage = client.post("/v1/embeddings", json={"input": texts}).json()["usage"]
    tokens = sum(len(plain(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert usage == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_a_model_of_others_is_served(tiny_base):
    antiphon_model = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=64)
    stock = SentenceTransformer(modules=[antiphon_model[0], antiphon_model[1]], prompts={"query": "Query: "})
    with client_of(stock) as client:
        outcome = compare(embed(client, unlike_texts(), input_type="query"), stock.encode_query(unlike_texts()))
        assert outcome.equal, str(outcome)


def test_models(client, model):
    (card,) = client.get("/v1/models").json()["data"]
    assert card == client.get("/v1/models/tiny").json()
    assert card["id"] == "tiny"
    assert card["dimensions"] == model.get_embedding_dimension()
    assert card["prompt_names"] == ["code", "document", "query"]
    assert "'other'" in refusal(client.get("/v1/models/other"), 404)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_is_by_cosine_of_query_and_document(client, model, path):
    query, documents = unlike_texts()[0], unlike_texts()[1:12]
    body = {"query": query, "documents": [{"text": documents[0]}, *documents[1:]], "return_documents": True}
    results = client.post(path, json=body).json()["results"]
    scores = model.similarity(model.encode_query([query]), model.encode_document(documents))[0].numpy()
    assert [entry["index"] for entry in results] == np.argsort(-scores, kind="stable").tolist()
    for entry in results:
        assert entry["relevance_score"] == pytest.approx(float(scores[entry["index"]]), abs=1e-5)
        assert entry["document"]["text"] == documents[entry["index"]]
    best = client.post(path, json={"query": query, "documents": documents, "top_n": 2}).json()["results"]
    assert [entry["index"] for entry in best] == [entry["index"] for entry in results[:2]]
    assert "document" not in best[0]


WRONG = {
    "an empty text": ({"input": ["a", ""]}, 400, "Text 1 of input is empty"),
    "no texts": ({"input": []}, 400, "input must be"),
    "no ids": ({"input": [[]]}, 400, "input must be"),
    "no input": ({}, 400, "The field input is missing"),
    "a number": ({"input": 3}, 400, "3 is not"),
    "texts and ids": ({"input": ["a", 3]}, 400, "input must be"),
    "a truth value": ({"input": [True]}, 400, "input must be"),
    "an unknown model": ({"input": "a", "model": "gpt-4"}, 404, "There is no model 'gpt-4' here; this server has"),
    "an unknown field": ({"input": "a", "input_typ": "query"}, 400, "There is no field 'input_typ'"),
    "an unknown side": ({"input": "a", "input_type": "qurey"}, 400, "input_type must be query or document"),
    "an unknown prompt": ({"input": "a", "prompt_name": "x"}, 400, "has no prompt named 'x'; it has code, document"),
    "too many dimensions": ({"input": "a", "dimensions": 4096}, 400, "dimensions is 4096; this model's vectors have"),
    "no dimensions": ({"input": "a", "dimensions": 0}, 400, "dimensions must be"),
    "a format": ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format must be float or base64"),
    "10,000 inputs": ({"input": ["a"] * 10_000}, 400, "input holds 10,000 texts; at most 2,048"),
    "10,000 arrays of ids": ({"input": [[5]] * 10_000}, 400, "input holds 10,000 texts; at most 2,048"),
    "half a character": ({"input": "\ud800"}, 400, "surrogate"),
    "ids that are none": ({"input": [-1]}, 400, "Token id -1 is none of this model's"),
    "ids past all numbers": ({"input": [10**30]}, 400, "is none of this model's"),
    "not an object": ([], 400, "must be a JSON object"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(client, name):
    body, status, sentence = WRONG[name]
    answer = client.post("/v1/embeddings", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert sentence in refusal(answer, status)


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b'{"input": "a"', 400, "The body is not JSON"),
        (b'{"input": "\xff"}', 400, "The body is not UTF-8 (byte 11)"),
        ('{"input": "a"}'.encode("utf-16"), 400, "not UTF-8"),
        (b"[" * 100_000, 400, "could not be read as JSON"),
        (b'{"input": ' + b"1" * 5000 + b"}", 400, "could not be read as JSON"),
        (b'{"input": NaN}', 400, "input must be"),
        (b"", 400, "must be a JSON object"),
        (b'{"input": "' + b"a" * 9_000_000 + b'"}', 413, "The body is larger than 8,388,608 bytes"),
    ],
    ids=["cut", "bytes", "utf-16", "deep", "digits", "nan", "nothing", "huge"],
)
def test_bytes_that_are_no_request(client, content, status, sentence):
    answer = client.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
    assert sentence in refusal(answer, status)


def test_a_huge_body_in_chunks_is_refused_while_it_comes(client):
    chunks = (b"a" * 1_000_000 for _ in range(9))
    answer = client.post("/v1/embeddings", content=chunks, headers={"Content-Type": "application/json"})
    assert "larger than" in refusal(answer, 413)


def test_other_ways_in(client):
    plain = client.post("/v1/embeddings", content=b'{"input": "a"}', headers={"Content-Type": "text/plain"})
    assert "Content-Type" in refusal(plain, 415)
    assert "GET is not a method of /v1/embeddings" in refusal(client.get("/v1/embeddings"), 405)
    assert "nothing at /v1/chat/completions" in refusal(client.post("/v1/chat/completions", json={}), 404)
    # pages that would load scripts from elsewhere
    assert {client.get(path).status_code for path in ("/docs", "/redoc")} == {404}


def test_the_key_is_asked_for_everywhere_but_at_the_door(model):
    with client_of(model, api_key="right") as client:
        assert "missing" in refusal(client.get("/v1/models"), 401)
        for wrong in ("Bearer wrong", "Bearer righ", "Basic right", "Bearer ключ".encode()):
            answer = client.post("/v1/embeddings", json={"input": "a"}, headers={"Authorization": wrong})
            assert "wrong" in refusal(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        opened = client.post("/v1/embeddings", json={"input": "a"}, headers={"Authorization": "Bearer right"})
        assert opened.status_code == 200
        assert client.get("/health").status_code == 200
        document = client.get("/openapi.json", headers={"Authorization": "Bearer right"}).json()
        closed = set(document["paths"]) - {"/health"} | {"/openapi.json", "/nothing/here"}
        for path in closed:
            assert {client.request(method, path).status_code for method in ("GET", "POST")} == {401}, path
        assert client.get("/").status_code == 200


def test_a_full_queue_is_429_with_a_time(model):
    # one text at a time through a queue of one, asked for by many at once
    from concurrent.futures import ThreadPoolExecutor

    with client_of(model, max_queue=1) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.post("/v1/embeddings", json={"input": f"text {n}"}), range(40)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert "ask again in" in refusal(refused, 429)


def test_health_and_figures(client):
    assert client.get("/health").json() == {"status": "ok"}
    embed(client, ["one", "two"])
    text = client.get("/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures["antiphon_texts_total"]) >= 2
    assert float(figures["antiphon_open_texts"]) == 0
    assert float(figures['antiphon_requests_total{route="/v1/embeddings",status="200"}']) >= 1
    assert not [name for name in figures if "gpt" in name or "chat" in name], "a path of a client's became a label"


def test_a_model_that_gives_no_numbers_is_a_500_with_a_sentence(tiny_base):
    import torch

    broken = antiphon.build(tiny_base, max_tokens=64)
    with client_of(broken) as client:
        with torch.no_grad():
            broken[0].model.norm.weight.fill_(float("nan"))
        assert "not finite" in refusal(client.post("/v1/embeddings", json={"input": "a"}), 500)


def test_settings_are_checked(tmp_path):
    for wrong in ({"api_key": ""}, {"api_key": "ключ"}, {"max_batch_tokens": 0}, {"max_queue": -1}, {"name": " "}):
        with pytest.raises(ConfigError):
            ServerSettings(**{"name": "tiny", **wrong})
    assert serving.served_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert serving.served_name(str(tmp_path)) == tmp_path.name
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0")] == [True] * 3 + [False]
