"""A server before a server: texts come in, token ids go out, and the vectors are the model's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from http_servers import JsonHandler, starting
from starlette.testclient import TestClient

import antiphon
from antiphon.cli import main
from antiphon.errors import ConfigError
from antiphon.model.parity import compare, unlike_texts
from antiphon.model.prompts import prompt_of
from antiphon.serving.app import create_app
from antiphon.serving.server_settings import ServerSettings

PROMPTS = {"query": "Find the answer"}


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo", prompts=PROMPTS, pooling="last", max_tokens=64)


class Engine:
    """An engine that holds the weights and pools the last token of the ids that it is sent; it knows no template."""

    def __init__(self, model, *, width=None, owner="llamacpp"):
        self.decoder, self.width, self.owner = model[0].model, width, owner
        self.asked, self.broken, self.pooled = [], False, -1

    def vectors(self, rows):
        with torch.inference_mode():
            found = [self.decoder(torch.tensor([row])).last_hidden_state[0] for row in rows]
        found = [(one.mean(0) if self.pooled is None else one[self.pooled]).float().numpy() for one in found]
        unit = [vector / np.linalg.norm(vector) for vector in found]
        return [row[: self.width].tolist() for row in unit]


@pytest.fixture
def started(model):
    def start(engine):
        class Handler(JsonHandler):
            def do_GET(self):
                listed = {"data": [{"id": "it", "owned_by": engine.owner}], "models": [{"name": "it"}]}
                path = "/api/tags" if engine.owner == "library" else "/v1/models"
                self.answer(listed, 200 if self.path == path else 404)

            def do_POST(self):
                asked = self.asked()["input"]
                engine.asked.append(asked)
                if engine.broken:
                    return self.answer({"error": "out of memory"}, 500)
                rows = [{"index": n, "embedding": row} for n, row in enumerate(engine.vectors(asked))]
                self.answer({"data": rows})

        return listening(Handler)

    with starting() as listening:
        yield start


def client_of(model, upstream):
    app = create_app(model, ServerSettings(name="tiny", upstream=upstream))
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def test_vectors_are_the_models_on_both_sides(model, started):
    engine = Engine(model)
    with client_of(model, started(engine)) as client:
        for side, verb in (("query", model.encode_query), ("document", model.encode_document)):
            answer = client.post("/v1/embeddings", json={"input": unlike_texts(), "input_type": side})
            found = np.array([row["embedding"] for row in answer.json()["data"]], dtype=np.float32)
            outcome = compare(found, verb(unlike_texts()))
            assert outcome.equal, str(outcome)
    assert all(isinstance(index, int) for batch in engine.asked for row in batch for index in row)
    features = model.preprocess([unlike_texts()[0]], prompt=prompt_of(model, "query"), task="query")
    assert features["input_ids"][0].tolist() in [row for batch in engine.asked for row in batch]


def test_a_failure_behind_it_is_told(model, started):
    engine = Engine(model)
    with client_of(model, started(engine)) as client:
        engine.broken = True
        answer = client.post("/v1/embeddings", json={"input": "a text"})
        assert answer.status_code == 502
        assert "The server behind this one failed." in answer.json()["error"]["message"]
        assert "out of memory" in answer.json()["error"]["message"]
        engine.broken, engine.width = False, 8
        answer = client.post("/v1/embeddings", json={"input": "a text"})
        assert answer.status_code == 502
        assert "gives vectors of 8 dimensions and the model has 32" in answer.json()["error"]["message"]


def test_an_engine_that_takes_strings_only_is_refused(model, started):
    with pytest.raises(ConfigError, match="takes strings only"):
        create_app(model, ServerSettings(name="tiny", upstream=started(Engine(model, owner="library"))))


def test_an_engine_that_gives_other_vectors_is_refused_at_the_start(model, tiny_base, started):
    def serves(engine, of=model):
        create_app(of, ServerSettings(name="tiny", upstream=started(engine)))

    mean, narrow = Engine(model), Engine(model, width=8)
    mean.pooled = None
    with pytest.raises(ConfigError, match=r"pools otherwise, or lacks the model's calibration; antiphon doctor http"):
        serves(mean)
    with pytest.raises(ConfigError, match="gives vectors of 8 dimensions and the model has 32"):
        serves(narrow)
    with pytest.raises(ConfigError, match="lacks the model's calibration"):
        serves(Engine(model), of=antiphon.calibrate(model, unlike_texts()))
    serves(Engine(model))


def test_the_command_prints_the_ids_of_each_text(model, tmp_path, capsys):
    folder = antiphon.save(model, tmp_path / "saved")
    texts = unlike_texts()[:3]
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"id": f"t{n}", "text": one}) + "\n" for n, one in enumerate(texts))
    )
    for side in ("query", "document"):
        with pytest.raises(SystemExit) as end:
            main(["tokens", str(folder), "--input", str(tmp_path / "texts.jsonl"), "--side", side])
        assert end.value.code in (None, 0)
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["id"] for row in rows] == ["t0", "t1", "t2"]
        for row, text in zip(rows, texts, strict=True):
            features = model.preprocess([text], prompt=prompt_of(model, side), task=side)
            assert row["ids"] == features["input_ids"][0].tolist()
