"""A server in a process of its own: official clients, clients that die or read slowly, signals, the command line."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from serving_process import KEY, read_all, serving

import antiphon
from antiphon.cli import main
from antiphon.model.parity import LIMITS, compare, unlike_texts

pytestmark = pytest.mark.slow
QUERY = "Find the function"
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "serve.md"
CLIENT_BLOCKS = re.findall(r"^```py\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def openai():
    """The client's package, imported where it is used: each process of a suite collects this file."""
    return pytest.importorskip("openai")


@pytest.fixture(scope="module")
def langchain():
    return pytest.importorskip("langchain_openai")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = antiphon.build("nano", "echo", prompts={"query": QUERY}, max_tokens=128)
    return antiphon.save(model, tmp_path_factory.mktemp("served") / "my-embedder")


@pytest.fixture(scope="module")
def model(folder):
    return antiphon.load(folder)


@pytest.fixture(scope="module")
def server(folder, programs):
    with serving(str(programs / "antiphon"), str(folder)) as started:
        yield started


def same(a, b):
    outcome = compare(np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32), limit=LIMITS["bfloat16"])
    return outcome.equal, str(outcome)


def test_the_official_client(server, model, openai):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)
    assert [entry.id for entry in client.models.list()] == ["my-embedder"]
    assert client.models.retrieve("my-embedder").id == "my-embedder"
    texts = unlike_texts()
    plain = client.embeddings.create(model="my-embedder", input=texts)
    equal, figures = same([row.embedding for row in plain.data], model.encode(texts))
    assert equal, figures
    assert plain.usage.total_tokens > len(texts)
    sides = {
        side: client.embeddings.create(model="my-embedder", input=texts, extra_body={"input_type": side})
        for side in ("query", "document")
    }
    for side, verb in (("query", model.encode_query), ("document", model.encode_document)):
        equal, figures = same([row.embedding for row in sides[side].data], verb(texts))
        assert equal, (side, figures)
    floats = client.embeddings.create(model="my-embedder", input="a", encoding_format="float", dimensions=16)
    assert len(floats.data[0].embedding) == 16
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    by_ids = client.embeddings.create(model="my-embedder", input=ids)
    equal, figures = same([row.embedding for row in by_ids.data], model.encode(texts))
    assert equal, figures


def test_the_official_client_understands_our_refusals(server, openai):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="Text 0 of input is empty") as refused:
        client.embeddings.create(model="my-embedder", input="")
    assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError, match="There is no model 'gpt-4'") as unknown:
        client.embeddings.create(model="gpt-4", input="a")
    assert unknown.value.code == "model_not_found"
    stranger = openai.OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="The API key is wrong"):
        stranger.models.list()


def test_langchain(server, model, langchain):
    def embeddings(side):
        return langchain.OpenAIEmbeddings(
            model="my-embedder",
            base_url=server.url + "/v1",
            api_key=KEY,
            check_embedding_ctx_length=False,
            model_kwargs={"extra_body": {"input_type": side}},
        )

    texts = unlike_texts()
    equal, figures = same(embeddings("document").embed_documents(texts), model.encode_document(texts))
    assert equal, figures
    one = embeddings("query").embed_query(texts[2])
    assert np.dot(one, model.encode_query(texts[2], normalize_embeddings=True)) == pytest.approx(1, abs=1e-3)


def test_langchain_with_ids_of_another_tokenizer_is_told_the_way_out(server, monkeypatch, openai, langchain):
    tiktoken = pytest.importorskip("tiktoken")
    # its own encoding is fetched from the network; one of single bytes stands in its place
    pattern = r"\s?\S+|\s+"
    ranks = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding("cl100k_base", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", encoding)
    embeddings = langchain.OpenAIEmbeddings(model="my-embedder", base_url=server.url + "/v1", api_key=KEY)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(["The cat sat on the mat."])


def package_of(block):
    return re.match(r"(?:from|import) (\w+)", block)[1]


@pytest.mark.parametrize("block", CLIENT_BLOCKS, ids=package_of)
def test_the_clients_of_the_guide(server, block):
    if find_spec(package_of(block)) is None:
        pytest.skip(f"{package_of(block)} is not installed; benchmarks/clients.py runs it in an environment of its own")
    code = block.replace("http://127.0.0.1:8000", server.url).replace('nano"', 'my-embedder"').replace("unused", KEY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0].isdigit()


def test_concurrent_clients_get_their_own_answers(server, model):
    texts = unlike_texts()
    offline = model.encode(texts, normalize_embeddings=True)
    served: dict[int, np.ndarray] = {}

    def client(number):
        order = np.random.default_rng(number).permutation(len(texts))
        rows = server.ask([texts[n] for n in order])
        served[number] = np.asarray(rows, dtype=np.float32)[np.argsort(order)]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(served) == 12
    for vectors in served.values():
        equal, figures = same(vectors, offline)
        assert equal, figures


def test_killed_clients_leave_no_work_behind(server):
    before = server.figure("antiphon_texts_total")
    for number in range(20):
        server.send([f"client {number} wanted text {n} and went" for n in range(500)]).close()
    assert len(server.ask(["still here"])) == 1
    until = time.monotonic() + 60
    while server.figure("antiphon_open_texts") and time.monotonic() < until:
        time.sleep(0.05)
    assert server.figure("antiphon_open_texts") == 0
    # what nobody waits for is not embedded: most of the 10,000 texts
    assert server.figure("antiphon_texts_total") - before < 5000


def test_slow_readers_and_slow_writers_hold_up_nobody(server):
    slow = [server.send([f"word {n % 50}" for n in range(1200)], buffer=4096) for _ in range(3)]
    writers = []
    for _ in range(20):
        writer = socket.create_connection(("127.0.0.1", server.port))
        writer.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            + f"Authorization: Bearer {KEY}\r\n\r\n{{".encode()
        )
        writers.append(writer)
    for number in range(5):
        assert len(server.ask([f"in between {number}"])) == 1
    for connection in slow:
        status, content = read_all(connection)
        assert status == 200
        assert [row["index"] for row in content["data"]] == list(range(1200))
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["nano", "--port", "TAKEN"], {}, "cannot listen on 127.0.0.1 port"),
        (["nano", "--host", "no.such.host.invalid"], {}, "cannot listen on no.such.host.invalid"),
        (["nano", "--port", "0"], {"ANTIPHON_API_KEY": ""}, "The API key is empty"),
        (["nano", "--port", "0", "--max-queue", "0"], {}, "max_queue is 0"),
        (["./nowhere", "--port", "0"], {}, "There is no folder ./nowhere"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(arguments, environment, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = [str(taken.getsockname()[1]) if word == "TAKEN" else word for word in arguments]
        with pytest.raises(SystemExit) as ended:
            main(["serve", *given])
    told = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2, told
    assert sentence in told
    assert "Traceback" not in told


def test_without_the_extra_it_says_what_to_install(programs):
    # a Python in which the packages of the extra cannot be found
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('uvicorn', 'orjson') else find(name, *rest)\n"
        "from antiphon.cli import main; main(['serve', 'nano'])"
    )
    command = [str(programs / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "pip install 'antiphon[serve]'" in done.stderr


def test_the_openapi_document_is_json(server):
    assert "/v1/embeddings" in json.loads(server.get("/openapi.json"))["paths"]


# the last one: it stops the server
def test_a_signal_lets_answers_finish_and_ends_with_zero(server):
    connection = server.send([f"a text in flight, number {n}, of some length" for n in range(400)])
    while not server.figure("antiphon_open_texts"):
        time.sleep(0.01)
    assert server.stop() == 0
    status, content = read_all(connection)
    assert status == 200
    assert len(content["data"]) == 400
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    assert not [line for line in server.said if "Traceback" in line], server.said
