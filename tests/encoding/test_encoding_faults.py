"""Off is loud: a supported model without its fast path is said once by the verbs, and ends the demo and benchmarks."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path

import pytest
import torch
from conftest import FAULT, make_base
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import WordWeights

import antiphon
from antiphon import compat, demo
from antiphon.cli import main
from antiphon.encoding.support import is_supported
from antiphon.errors import ModelError
from antiphon.training.losses.packer import Packer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SOURCES = ("the check fails", "a layer cannot be called", "a name is gone", "the interface is gone")


@pytest.fixture(params=SOURCES)
def _broken(request, monkeypatch) -> None:
    """What a release of the libraries below does to the fast path."""

    def gone(*arguments: object, **settings: object) -> object:
        raise TypeError("forward() got an unexpected keyword argument")

    if request.param == "the check fails":
        monkeypatch.setattr("antiphon.encoding.check.Distance.within", lambda *given: False)
    elif request.param == "a layer cannot be called":
        monkeypatch.setattr("antiphon.encoding.decoder.Decoder.__call__", gone)
    elif request.param == "a name is gone":
        monkeypatch.setattr("antiphon.encoding.support.hasattr", lambda *arguments: False, raising=False)
    else:
        monkeypatch.setattr("transformers.PreTrainedModel.is_backend_compatible", classmethod(lambda cls: False))


@pytest.fixture
def built(tiny_base):
    return antiphon.build(tiny_base, "classical", pooling="mean", max_tokens=64, dtype="float32")


@pytest.mark.falls_back
@pytest.mark.usefixtures("_broken")
def test_a_supported_model_without_its_fast_path_says_what_is_lost_and_the_way_back(built):
    encoder = antiphon.Encoder(built)
    assert encoder.reason == encoder.fault
    assert "2 to 5 times slower" in encoder.fault
    assert f"llama {FAULT}" in encoder.fault
    assert compat.RUN_RELEASES in encoder.fault
    assert "\n" not in encoder.fault
    with pytest.raises(ModelError, match="this is a fault"):
        encoder.require_fast()


@pytest.mark.falls_back
@pytest.mark.usefixtures("_broken")
def test_the_demo_and_the_benchmark_fail(tiny_base, monkeypatch):
    with pytest.raises(ModelError, match="this is a fault"):
        demo.run(tiny_base, limit=2, max_tokens=64)
    monkeypatch.setattr("sys.argv", ["modules.py", str(tiny_base)])
    with pytest.raises(ModelError, match="this is a fault"):
        runpy.run_path(str(BENCHMARKS / "modules.py"), run_name="__main__")


@pytest.mark.falls_back
@pytest.mark.parametrize("verb", ["embed", "search", "mine"])
def test_a_verb_goes_on_and_says_it_once(verb, tiny_base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("antiphon.encoding.check.Distance.within", lambda *given: False)
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\nanother\nand a third\n", encoding="utf-8")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"anchor": "one", "positive": "one text"}\n{"anchor": "two", "positive": "another"}\n')
    arguments = {
        "embed": ["embed", str(tiny_base), str(texts), "--out", str(tmp_path / "out")],
        "search": ["search", str(texts), "a text", "--model", str(tiny_base)],
        "mine": ["mine", str(tiny_base), str(pairs), "--out", str(tmp_path / "mined.jsonl"), "--negatives", "1"],
    }
    with pytest.raises(SystemExit) as end:
        main([*arguments[verb], "--template", "classical", "--max-tokens", "64"])
    told = capsys.readouterr().err
    assert end.value.code in (None, 0), told
    assert told.count(FAULT) == 1
    assert len([line for line in told.splitlines() if "model.encode" in line]) == 1


@pytest.mark.falls_back
def test_training_that_pads_says_what_is_lost(built, monkeypatch, caplog):
    monkeypatch.setattr("antiphon.encoding.masks.packed_mask", lambda *a, **k: torch.zeros(1))
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        assert Packer.of(built) is None
    assert f"llama {FAULT}" in caplog.text


def test_what_never_ran_packed_or_was_asked_otherwise_is_no_fault(built, tiny_base):
    strange = SentenceTransformer(modules=[built[0], built[1], WordWeights([], {})])
    assert not is_supported(strange)
    encoder = antiphon.Encoder(strange)
    assert encoder.reason is not None
    assert encoder.fault is None
    assert encoder.require_fast() is encoder
    assert is_supported(built)


def test_a_family_that_never_ran_packed_is_no_fault(tmp_path):
    from transformers import AutoModelForCausalLM, GPT2Config

    folder = make_base(tmp_path / "base")
    config = GPT2Config(vocab_size=700, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    encoder = antiphon.Encoder(antiphon.build(folder, "classical", pooling="mean", max_tokens=64, dtype="float32"))
    assert encoder.reason is not None
    assert encoder.fault is None


def test_a_model_that_cannot_embed_at_all_is_not_blamed_on_packing(built, monkeypatch):
    def refused(*arguments: object, **settings: object) -> object:
        raise ModelError("this text is refused")

    monkeypatch.setattr(built, "encode", refused)
    monkeypatch.setattr("antiphon.encoding.decoder.Decoder.__call__", refused)
    encoder = antiphon.Encoder(built)
    assert "this text is refused" in encoder.reason
    assert encoder.fault is None
