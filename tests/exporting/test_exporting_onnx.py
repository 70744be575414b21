"""The graph: the same vectors from onnxruntime and tokenizer.json alone, span mean included; 8 bits and their price."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import antiphon
from antiphon.errors import ModelError, ParityError
from antiphon.exporting import FORMS
from antiphon.exporting import onnx_graph as graph
from antiphon.exporting.onnx_form import INT8_LIMIT
from antiphon.exporting.verified import ONNX, Call, ask
from antiphon.model.parity import compare, encode, unlike_texts

pytestmark = pytest.mark.usefixtures("warm_checks")

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
TYPED = "</s> and <s> typed by a user"


@pytest.fixture(scope="module")
def model(tiny_base):
    prompts = {"query": "Find the answer"}
    return antiphon.build(tiny_base, "echo", max_tokens=200, dtype="float32", prompts=prompts)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return antiphon.export(model, to="onnx", out=tmp_path_factory.mktemp("onnx") / "out")


def asked(folder, texts, file=graph.GRAPH):
    return ask(ONNX, {"one": Call(folder, file=file)}, texts)["one"]


@pytest.mark.slow
def test_span_mean_of_both_sides_from_the_tokenizer_alone(model, exported):
    texts = [*unlike_texts(), "  spaces", TYPED, "long " * 600]
    for side, folder in exported.prompts.items():
        assert {path.name for path in folder.iterdir()} == {"model.onnx", "tokenizer.json"}
        got = asked(folder, texts)
        assert compare(encode(model, texts, side=side), got).equal
        assert np.allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    inodes = {(folder / "model.onnx").stat().st_ino for folder in exported.prompts.values()}
    assert len(inodes) == 1


@pytest.mark.slow
def test_the_graph_is_what_it_is_said_to_be(exported):
    made = onnx.load(exported.prompts["query"] / "model.onnx")
    assert [given.name for given in made.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [given.name for given in made.graph.output] == ["sentence_embedding"]
    assert {one.version for one in made.opset_import if one.domain == ""} == {graph.OPSET}
    onnx.checker.check_model(made)


@pytest.mark.slow
def test_the_controls_fail(model, exported, tmp_path):
    texts = unlike_texts()
    folder = exported.prompts["query"]
    want, got = encode(model, texts), asked(folder, texts)
    got[[3, 4]] = got[[4, 3]]
    assert not compare(want, got).equal
    for name, spoil in {
        "eos": lambda raw: raw["post_processor"]["single"].pop(),
        "span": lambda raw: raw["post_processor"]["single"][-1]["SpecialToken"].update(type_id=0),
    }.items():
        spoiled = shutil.copytree(folder, tmp_path / name)
        content = json.loads((spoiled / "tokenizer.json").read_text())
        spoil(content)
        (spoiled / "tokenizer.json").write_text(json.dumps(content))
        assert not compare(want, asked(spoiled, texts)).equal


@pytest.mark.slow
def test_a_bidirectional_last_token_graph_carries_the_map(bases, tmp_path):
    plain = antiphon.build(bases["gemma3"], "eol", pooling="last", max_tokens=200, dtype="float32", bidirectional=True)
    model = antiphon.calibrate(plain, unlike_texts())
    exported = antiphon.export(model, to="onnx", out=tmp_path / "out")
    made = onnx.load(exported.folder / "model.onnx")
    assert [given.name for given in made.graph.input] == ["input_ids", "attention_mask"]
    got = asked(exported.prompts["query"], unlike_texts())
    assert compare(encode(model, unlike_texts(), side="query"), got).equal
    assert not compare(encode(plain, unlike_texts(), side="query"), got).equal


@pytest.fixture
def traced(exported, monkeypatch):
    """Take the graph that was traced before for that of the same model."""
    written = exported.prompts["query"] / graph.GRAPH
    monkeypatch.setattr(graph, "write_graph", lambda model, path: shutil.copy(written, path))
    return written


@pytest.mark.slow
def test_eight_bits_have_a_limit_of_their_own_and_a_price(model, traced, tmp_path):
    exported = antiphon.export(model, to="onnx-int8", out=tmp_path / "out")
    assert exported.parity.limit == INT8_LIMIT
    assert exported.parity.error_against_spread > 1e-3  # 8 bits are not 32
    for folder in exported.prompts.values():
        assert {path.name for path in folder.iterdir()} == {"model_int8.onnx", "tokenizer.json"}
        assert (folder / "model_int8.onnx").stat().st_size < 0.8 * traced.stat().st_size  # the nodes stay
    assert exported.cost.difference.low <= exported.cost.difference.mean <= exported.cost.difference.high
    assert exported.cost.before.mean > 0.03  # ten of 200 by chance is 0.02
    assert abs(exported.cost.after.mean - exported.cost.before.mean) < 0.02
    assert "nDCG@10 over 200 docstrings" in str(exported.cost)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_vectors_too_far_off_in_eight_bits_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMS, "onnx-int8", replace(FORMS["onnx-int8"], limit=1e-3))
    with pytest.raises(ParityError, match="onnx-int8 export does not give"):
        antiphon.export(model, to="onnx-int8", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_the_graph_cannot_hold_is_refused(tiny_base, tmp_path):
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=200, dtype="float32")
    model[1].include_prompt = False
    with pytest.raises(ModelError, match="leave a prompt out of the pooling"):
        antiphon.export(model, to="onnx", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())
