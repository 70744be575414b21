"""GGUF files that are written: the weights and tokens of the base, what a client must send, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_base
from tokenizers import Tokenizer

import antiphon
from antiphon.errors import CheckpointError, ModelError
from antiphon.exporting import gguf_encode, gguf_form
from antiphon.exporting.gguf_vocabulary import SPLITS, UNKNOWN_SPLIT, vocabulary_of
from antiphon.exporting.gguf_weights import FAMILIES, tensors
from antiphon.exporting.verified import FormSettings
from antiphon.model.parity import compare, encode, unlike_texts
from antiphon.model.prompts import prompt_of

pytestmark = pytest.mark.usefixtures("warm_checks")

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
LONG = "a word and another " * 300
ODD = ["", " ", "a </s> in the middle", "  two spaces", "caf\u00e9 \U0001f600", LONG]


def written(model, folder, weights="f16"):
    folder.mkdir()
    return gguf_form.writes(weights)(model, folder, FormSettings()), folder / f"model-{weights}.gguf"


def said(file):
    reader = gguf.GGUFReader(file)
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


@pytest.fixture(scope="module")
def echo(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=64, dtype="float32")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reader_finds_the_weights_of_the_base(family, tmp_path):
    base = make_base(tmp_path / "base", family)
    model = antiphon.build(base, "classical", pooling="last", max_tokens=64, dtype="float32")
    _, file = written(model, tmp_path / "out")
    read = gguf_encode.opened(file)[0].state_dict()
    own = model[0].model.state_dict()
    assert set(own) == set(read)
    for name, values in own.items():
        rounded = values.half().float() if values.dim() == 2 else values
        assert torch.equal(read[name], rounded), name


@pytest.mark.parametrize(("weights", "limit"), [("f16", 5e-3), ("bf16", 5e-2), ("q8_0", 1e-1)])
def test_the_vectors_are_those_of_the_model(weights, limit, echo, tmp_path):
    calls, file = written(echo, tmp_path / "out", weights)
    decoder, pooling = gguf_encode.opened(file)
    texts = [*unlike_texts(), *ODD]
    for name, call in calls.items():
        tokenizer = Tokenizer.from_file(str(call.folder / "tokenizer.json"))
        found = gguf_encode.encode(decoder, pooling, tokenizer, texts)
        side = "document" if name == "document" else "query"
        outcome = compare(found, encode(echo, texts, side=side), limit=limit)
        assert outcome.equal, str(outcome)


def test_the_tokenizer_beside_it_gives_the_models_ids(tiny_base, tmp_path):
    prompts = {"query": "Find the answer"}
    model = antiphon.build(tiny_base, "echo", pooling="last", max_tokens=64, prompts=prompts)
    calls, _ = written(model, tmp_path / "out")
    assert set(calls) == {"query", "document"}
    for side, call in calls.items():
        tokenizer = Tokenizer.from_file(str(call.folder / "tokenizer.json"))
        for text in [*unlike_texts(), *ODD]:
            features = model.preprocess([text], prompt=prompt_of(model, side), task=side)
            assert tokenizer.encode(text).ids == features["input_ids"][0].tolist(), text


def test_a_doubled_string_gives_other_tokens_where_its_pieces_meet():
    """Why clients send ids to llama.cpp: a string is not exact for every text, whatever is done with BOS and EOS."""
    model = antiphon.build("nano", "echo-rewrite", pooling="last", max_tokens=256)
    plain = antiphon.build("nano", "classical").tokenizer  # that of a GGUF file: it says the text once
    ends = {plain.bos_token_id, plain.eos_token_id}
    same = []
    for text in unlike_texts():
        ids = model.preprocess([text])["input_ids"][0].tolist()
        whole = f"Rewrite the following paragraph: {text}. The rewritten paragraph: {text}"
        string = plain(whole, add_special_tokens=False)["input_ids"]
        same.append([one for one in ids if one not in ends] == string)
    assert any(same)
    assert not all(same)


@pytest.mark.parametrize(("template", "ends"), [("classical", True), ("eol", False)])
def test_the_file_says_pooling_and_the_ends_of_a_sequence(template, ends, tiny_base, tmp_path):
    model = antiphon.build(tiny_base, template, pooling="last", max_tokens=64)
    _, file = written(model, tmp_path / "out")
    fields = said(file)
    assert fields["llama.pooling_type"] == gguf.PoolingType.LAST
    assert fields["tokenizer.ggml.add_eos_token"] is ends
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.eos_token_id"] == model.tokenizer.eos_token_id


def test_the_tokens_are_the_bases_own(echo, tiny_base, tmp_path):
    _, file = written(echo, tmp_path / "out")
    fields, base = said(file), json.loads((tiny_base / "tokenizer.json").read_text())
    by_id = sorted(base["model"]["vocab"].items(), key=lambda pair: pair[1])
    assert fields["tokenizer.ggml.tokens"] == [token for token, _ in by_id]
    assert len(fields["tokenizer.ggml.merges"]) == len(base["model"]["merges"])
    kinds = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert kinds["</s>"] == gguf.TokenType.CONTROL
    assert kinds["a"] == gguf.TokenType.NORMAL
    assert fields["tokenizer.ggml.pre"] == "gpt-2"


def test_rows_of_the_embeddings_without_a_token_are_unused_ones(tiny_base):
    tokenizer = antiphon.build(tiny_base, max_tokens=64).tokenizer
    vocabulary = vocabulary_of(tokenizer, len(tokenizer) + 3)
    assert vocabulary.tokens[-1] == f"[PAD{len(tokenizer) + 2}]"
    assert vocabulary.types[-3:] == [gguf.TokenType.UNUSED] * 3


def test_the_way_a_text_is_split_is_known_by_its_name(tiny_base):
    tokenizer = antiphon.build(tiny_base, max_tokens=64).tokenizer
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    for name, steps in SPLITS.items():
        backend = Tokenizer.from_str(json.dumps({**raw, "pre_tokenizer": whole(steps)}))
        tokenizer.backend_tokenizer.pre_tokenizer = backend.pre_tokenizer
        assert vocabulary_of(tokenizer, 10).split == name
    odd = Tokenizer.from_str(json.dumps({**raw, "pre_tokenizer": whole([SPLITS["smollm"][0], *SPLITS["llama-bpe"]])}))
    tokenizer.backend_tokenizer.pre_tokenizer = odd.pre_tokenizer
    assert vocabulary_of(tokenizer, 10).split == UNKNOWN_SPLIT
    assert not vocabulary_of(tokenizer, 10).reads_texts


def whole(steps):
    filled = [{"trim_offsets": True, **step} if step["type"] == "ByteLevel" else step for step in steps]
    return filled[0] if len(filled) == 1 else {"type": "Sequence", "pretokenizers": filled}


def test_scaled_rotary_frequencies_are_written_as_factors(tmp_path):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    base = make_base(tmp_path / "base", "llama", rope_parameters=rope)
    model = antiphon.build(base, "echo-rewrite", pooling="last", max_tokens=64, dtype="float32")
    (factors,) = (one.values for one in tensors(model[0].model, FAMILIES["llama"], weights="f16") if "rope" in one.name)
    assert factors[0] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(8.0)
    calls, file = written(model, tmp_path / "out")
    decoder, pooling = gguf_encode.opened(file)
    tokenizer = Tokenizer.from_file(str(calls["query"].folder / "tokenizer.json"))
    found = gguf_encode.encode(decoder, pooling, tokenizer, unlike_texts())
    assert compare(found, encode(model, unlike_texts()), limit=5e-3).equal


@pytest.mark.parametrize(("template", "strings"), [("classical", True), ("echo-rewrite", False)])
def test_the_card_says_what_a_client_must_send(template, strings, tiny_base, tmp_path):
    model = antiphon.build(tiny_base, template, pooling="last", max_tokens=64)
    written(model, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    longest = 64 if strings else 2 * 64 - overhead(model)
    assert f"llama-server -m model-f16.gguf --embeddings --pooling last --ctx-size {longest} " in text
    assert "--cache-type-k f32 --cache-type-v f32 --flash-attn off" in text
    assert 'tokenizer.encode("a text").ids' in text
    assert ("An empty text gets no prompt" in text) == strings  # classical has prompts, and echo-rewrite has none
    assert ("A text may also be sent as a string" in text) == strings
    assert ("A string is not enough" in text) != strings


def overhead(model):
    return len(model.preprocess([""])["input_ids"][0])


def test_what_the_file_cannot_say_is_refused_with_the_way_out(tiny_base, metaspace_base, tmp_path):
    plain = antiphon.build(tiny_base, "echo-rewrite", pooling="last", max_tokens=64)
    refused = {
        "cannot hold the calibration": antiphon.calibrate(plain, unlike_texts()),
        "is bidirectional": antiphon.build(tiny_base, "classical", bidirectional=True, pooling="last", max_tokens=64),
        "byte-level BPE": antiphon.build(metaspace_base, "classical", pooling="last", max_tokens=64),
        "names of gemma3_text": antiphon.build(
            make_base(tmp_path / "gemma", "gemma3"), "classical", pooling="last", max_tokens=64
        ),
        "over a part of the tokens": antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64),
    }
    for number, (sentence, model) in enumerate(refused.items()):
        with pytest.raises(ModelError, match=sentence):
            written(model, tmp_path / str(number))


def test_numbers_that_float16_cannot_hold_are_refused(tiny_base, tmp_path):
    model = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=64, dtype="float32")
    with torch.no_grad():
        model[0].model.embed_tokens.weight[5, 3] = 1e5
    with pytest.raises(ModelError, match="float16 cannot hold; export to gguf-bf16"):
        written(model, tmp_path / "out")
    written(model, tmp_path / "whole", "bf16")


@pytest.mark.slow
def test_the_export_checks_what_it_writes_and_overwrites_nothing(echo, tmp_path):
    done = antiphon.export(echo, to="gguf", out=tmp_path / "out")
    assert done.parity.equal
    assert done.longest == 2 * 64 - overhead(echo)
    assert (tmp_path / "out" / "model-f16.gguf").exists()
    with pytest.raises(CheckpointError):
        antiphon.export(echo, to="gguf", out=tmp_path / "out")


def test_eight_bits_are_within_half_a_step(echo, tmp_path):
    _, file = written(echo, tmp_path / "out", "q8_0")
    read, _ = gguf_encode.opened(file)
    own = echo[0].model.embed_tokens.weight.detach().numpy()
    blocks = own.reshape(-1, 32)
    step = np.abs(blocks).max(axis=1, keepdims=True) / 127
    apart = np.abs(read.embed_tokens.weight.detach().numpy().reshape(-1, 32) - blocks)
    assert (apart <= 0.6 * step + 1e-6).all()
