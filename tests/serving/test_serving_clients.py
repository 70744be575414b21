"""What clients of other servers send: taken where it changes nothing, mapped where it means something, else refused."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import numpy as np
import pytest
from starlette.testclient import TestClient

import antiphon
from antiphon.model.parity import compare, unlike_texts
from antiphon.serving.app import create_app
from antiphon.serving.limits import plain_path
from antiphon.serving.server_settings import ServerSettings

TEXTS = unlike_texts()[:32]
LONG = "word " * 200
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo", prompts={"query": "Find the answer", "code": "Find it"}, max_tokens=128)


@pytest.fixture(scope="module")
def client(model):
    app = create_app(model, ServerSettings(name="tiny"))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def offline(model):
    return {
        None: model.encode(TEXTS, normalize_embeddings=True),
        "query": model.encode_query(TEXTS, normalize_embeddings=True),
        "document": model.encode_document(TEXTS, normalize_embeddings=True),
    }


def vectors_of(client, path="/v1/embeddings", **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], dtype=np.float32)


def refused(answer, status=400):
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]["message"]
    assert message.endswith(".")
    return message


CHANGING_NOTHING = {
    "encoding_format null": {"encoding_format": None},
    "nulls": {"user": None, "dimensions": None, "input_type": None, "task": None, "truncate": None},
    "user": {"user": "somebody"},
    "Jina's task of likes": {"task": "text-matching"},
    "Cohere's clustering": {"input_type": "clustering"},
    "Cohere's END": {"truncate": "END"},
    "Cohere's NONE": {"truncate": "NONE"},
    "Jina's truncate": {"truncate": True},
    "Voyage's truncation": {"truncation": True},
    "no truncation of short texts": {"truncation": False},
    "vLLM's own limit": {"truncate_prompt_tokens": -1},
    "a limit beyond any text": {"truncate_prompt_tokens": 4096},
    "Voyage's dtype": {"output_dtype": "float"},
    "Jina's type": {"embedding_type": "float", "normalized": True, "late_chunking": False},
    "vLLM's": {"priority": 0, "request_id": "x", "add_special_tokens": True},
    "a model with a provider": {"model": "openai/tiny"},
}


@pytest.mark.parametrize("name", CHANGING_NOTHING)
def test_fields_that_change_nothing_are_taken(client, offline, name):
    outcome = compare(vectors_of(client, input=TEXTS, **CHANGING_NOTHING[name]), offline[None])
    assert outcome.equal, str(outcome)


SIDES = {
    "search_query": ({"input_type": "search_query"}, "query"),
    "search_document": ({"input_type": "search_document"}, "document"),
    "passage": ({"input_type": "passage"}, "document"),
    "Jina's query": ({"task": "retrieval.query"}, "query"),
    "Jina's passage": ({"task": "retrieval.passage"}, "document"),
    "both, alike": ({"input_type": "document", "task": "retrieval.passage"}, "document"),
}


@pytest.mark.parametrize("name", SIDES)
def test_kinds_of_input_of_others_are_sides(client, offline, name):
    fields, side = SIDES[name]
    outcome = compare(vectors_of(client, input=TEXTS, **fields), offline[side])
    assert outcome.equal, str(outcome)


def test_prompts_by_name_by_text_and_by_instruction(client, model):
    wanted = model.encode_query(TEXTS, prompt="Find something else", normalize_embeddings=True)
    for fields in ({"prompt": "Find something else"}, {"instruction": "Find something else"}):
        outcome = compare(vectors_of(client, input=TEXTS, input_type="query", **fields), wanted)
        assert outcome.equal, (fields, str(outcome))
    named = vectors_of(client, input=TEXTS, prompt_name="code")
    assert compare(named, model.encode(TEXTS, prompt="Find it", normalize_embeddings=True)).equal
    assert not compare(named, wanted).equal


def test_an_instruction_without_a_place_is_refused(tiny_base):
    bare = antiphon.build(tiny_base, "Say: {text}", max_tokens=64)
    app = create_app(bare, ServerSettings(name="bare"))
    with TestClient(app, base_url="http://localhost") as client:
        for side in ("query", "document"):
            body = {"input": "a", "instruction": "Find it", "input_type": side}
            assert "takes no instruction there" in refused(client.post("/v1/embeddings", json=body))


PATHS = ["/v1/embeddings", "/embeddings", "/v1/embeddings/", "/embeddings/", "//v1//embeddings", "/v1/embeddings//"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_as_clients_put_them_together(client, offline, path):
    assert compare(vectors_of(client, f"http://127.0.0.1:8000{path}", input=TEXTS), offline[None]).equal


def test_a_body_without_a_type_is_json(client, offline):
    answer = client.post("/v1/embeddings", content=json.dumps({"input": TEXTS}).encode())
    assert compare(np.array([row["embedding"] for row in answer.json()["data"]]), offline[None]).equal


def test_models_without_a_version_and_with_a_provider(client):
    for path in ("/models", "/v1/models/", "/models/tiny", "/v1/models/openai/tiny"):
        assert client.get(path).status_code == 200, path
    assert plain_path("") == plain_path("//") == "/"


WRONG = {
    "integers": ({"output_dtype": "int8"}, "output_dtype must be float, the only kind of number"),
    "bits": ({"embedding_type": "binary"}, "embedding_type must be float"),
    "not of length 1": ({"normalized": False}, "normalized must be true, for every vector has length 1"),
    "late chunking": ({"late_chunking": True}, "late_chunking must be false"),
    "no special tokens": ({"add_special_tokens": False}, "add_special_tokens must be true"),
    "an image": ({"input_type": "image"}, "input_type must be query or document"),
    "another task": ({"task": "code.query"}, "task must be retrieval.query"),
    "two sides": ({"input_type": "query", "task": "retrieval.passage"}, "are not one side; give one of them"),
    "two prompts": ({"prompt": "a", "prompt_name": "code"}, "prompt_name and prompt are ways to say one thing"),
    "two widths": ({"dimensions": 8, "output_dimension": 4}, "are one thing; give one of them"),
    "too wide": ({"output_dimension": 4096}, "output_dimension is 4096; this model's vectors have"),
    "a long text, uncut": ({"input": LONG, "truncate": False}, "would be cut at about"),
    "a long text, NONE": ({"input": LONG, "truncate": "NONE"}, "which truncate does not allow"),
    "a long text, START": ({"input": LONG, "truncate": "START"}, "which truncate does not allow"),
    "a long text, truncation": ({"input": ["a", LONG], "truncation": False}, "Text 1 of input has"),
    "cut elsewhere": (
        {"input": LONG, "truncate_prompt_tokens": 20},
        "truncate_prompt_tokens is 20 and text 0",
    ),
    "cut to nothing": ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens is 0"),
    "cut below": ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens must be -1 or a whole number"),
    "an unknown prompt": ({"prompt_name": "x"}, "has no prompt named 'x'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_fields_that_would_change_something_are_refused(client, name):
    fields, sentence = WRONG[name]
    assert sentence in refused(client.post("/v1/embeddings", json={"input": "a", **fields}))


def test_texts_up_to_the_limit_are_not_called_cut(client, model):
    """A text that is let through with truncate: false gives what the same text gives in a model with more room."""
    taken = 0
    for words in range(1, 130):
        text = " ".join(["one"] * words)
        answer = client.post("/v1/embeddings", json={"input": text, "truncate": False, "input_type": "query"})
        if answer.status_code != 200:
            break
        taken = words
    text = " ".join(["one"] * taken)
    read, whole = (model.preprocess([text], prompt=model.prompts["query"], max_length=most) for most in (128, 250))
    assert taken > 10
    assert read["input_ids"].tolist() == whole["input_ids"].tolist(), "the last text that was let through was cut"


@pytest.mark.parametrize(
    ("pack", "encoding"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, "GZIP"),
        (zlib.compress, "deflate"),
        (lambda body: gzip.compress(body[:5]) + gzip.compress(body[5:]), "x-gzip"),
        (lambda body: body, "identity"),
    ],
)
def test_packed_bodies_are_unpacked(client, offline, pack, encoding):
    content = pack(json.dumps({"input": TEXTS}).encode())
    answer = client.post("/v1/embeddings", content=content, headers={**JSON, "Content-Encoding": encoding})
    assert answer.status_code == 200, answer.text
    assert compare(np.array([row["embedding"] for row in answer.json()["data"]]), offline[None]).equal


@pytest.mark.parametrize(
    ("content", "encoding", "status", "sentence"),
    [
        (gzip.compress(b'{"input": "' + b"a" * 50_000_000 + b'"}'), "gzip", 413, "larger than 8,388,608 bytes"),
        (gzip.compress(b'{"input": "a"}')[:-9], "gzip", 400, "cut short"),
        (b'{"input": "a"}', "gzip", 400, "cannot be unpacked"),
        (b'{"input": "a"}', "br", 415, "packed as 'br'; send it plain or with gzip"),
        (gzip.compress(b'{"input": "\xff"}'), "gzip", 400, "not UTF-8"),
    ],
    ids=["a bomb", "cut", "none", "brotli", "bytes"],
)
def test_what_cannot_be_unpacked_is_refused(client, content, encoding, status, sentence):
    answer = client.post("/v1/embeddings", content=content, headers={**JSON, "Content-Encoding": encoding})
    assert sentence in refused(answer, status)


def test_cohere_embed(client, offline):
    body = {"model": "tiny", "texts": TEXTS, "input_type": "search_document", "embedding_types": ["float", "base64"]}
    answer = client.post("/v2/embed", json={**body, "truncate": "END"}).json()
    assert answer["response_type"] == "embeddings_by_type"
    assert answer["texts"] == TEXTS
    assert compare(np.array(answer["embeddings"]["float"]), offline["document"]).equal
    packed = [np.frombuffer(base64.b64decode(row), dtype="<f4") for row in answer["embeddings"]["base64"]]
    assert np.array_equal(packed, np.array(answer["embeddings"]["float"], dtype=np.float32))
    parts = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    by_parts = client.post("/v2/embed", json={"inputs": parts, "input_type": "search_query"}).json()["embeddings"]
    assert set(by_parts) == {"float"}
    assert compare(np.array(by_parts["float"]), offline["query"]).equal
    old = client.post("/v1/embed", json={"texts": TEXTS, "input_type": "search_query"}).json()
    assert old["response_type"] == "embeddings_floats"
    assert compare(np.array(old["embeddings"]), offline["query"]).equal
    assert "embedding_types must be" in refused(client.post("/v2/embed", json={**body, "embedding_types": ["int8"]}))
    assert "as texts or as inputs" in refused(client.post("/v2/embed", json={"model": "tiny"}))
    assert "max_tokens is 3" in refused(client.post("/v2/embed", json={"texts": [LONG], "max_tokens": 3}))


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_tei_embed(client, offline, path):
    body = {"inputs": TEXTS, "truncate": True, "normalize": True, "truncation_direction": "Right"}
    assert compare(np.array(client.post(path, json=body).json()), offline[None]).equal
    one = client.post(path, json={"inputs": TEXTS[0], "dimensions": 8}).json()
    assert np.array(one).shape == (1, 8)
    named = client.post(path, json={"inputs": TEXTS, "prompt_name": "document"}).json()
    assert compare(np.array(named), offline["document"]).equal
    assert "normalize must be true" in refused(client.post(path, json={"inputs": "a", "normalize": False}))
    assert "truncate does not allow" in refused(client.post(path, json={"inputs": LONG, "truncate": False}))


def test_rerank_in_the_shapes_of_others(client, offline):
    query, texts = TEXTS[0], TEXTS[1:]
    wanted = offline["document"][1:] @ offline["query"][0]
    order = np.argsort(-wanted, kind="stable").tolist()
    body = {"query": query, "texts": texts, "raw_scores": False, "truncate": True, "return_text": True}
    rows = client.post("/rerank", json=body).json()
    assert [row["index"] for row in rows] == order
    assert [row["text"] for row in rows] == [texts[index] for index in order]
    assert [row["score"] for row in rows] == pytest.approx(wanted[order].tolist(), abs=1e-5)
    assert set(client.post("/rerank", json={"query": query, "texts": texts}).json()[0]) == {"index", "score"}
    cohere = {"query": query, "documents": texts, "max_tokens_per_doc": 4096, "top_n": None, "return_documents": None}
    assert [row["index"] for row in client.post("/v2/rerank", json=cohere).json()["results"]] == order
    best = client.post("/v1/rerank", json={"query": query, "documents": texts, "top_k": 2, "truncation": True}).json()
    assert [row["index"] for row in best["results"]] == order[:2]
    assert [row["index"] for row in best["data"]] == order[:2]
    assert "data" not in client.post("/v1/rerank", json={"query": query, "documents": texts}).json()
    short = {"query": query, "documents": [LONG], "max_tokens_per_doc": 5}
    assert "max_tokens_per_doc is 5" in refused(client.post("/rerank", json=short))
    both = {"query": query, "documents": texts, "texts": texts}
    assert "Give the documents" in refused(client.post("/rerank", json=both))
