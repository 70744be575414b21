"""A tokenizer edited without its vocabulary is the one that the whole edited file gives."""

from __future__ import annotations

import json
import random

import pytest
from conftest import train_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from antiphon import nano
from antiphon.model.parity import unlike_texts
from antiphon.text.tokenizer_json import assembled, parts_of, plain_text, without_prefix

TEXTS = [*unlike_texts(), "", "</s> typed <tool_call>", "  two  spaces ", "<s><|fim|>x<|fim|>"]
EDITS = {"none": lambda raw: raw, "plain": plain_text, "inner": lambda raw: without_prefix(plain_text(raw))}


def unigram() -> Tokenizer:
    """Lower-cased, with tokens of users that are matched before and after the normalizer, in mixed order."""
    pieces = [("<unk>", 0.0), *((letter, -2.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"), ("▁the", -1.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<S>"])
    backend.add_tokens([AddedToken("CAT", normalized=True), AddedToken("Cat", normalized=False, lstrip=True)])
    backend.add_special_tokens([AddedToken("</S>", rstrip=True)])
    backend.add_tokens(["  "])
    return backend


BACKENDS = {
    "byte-level": lambda: train_tokenizer("byte-level").backend_tokenizer,
    "added": lambda: train_tokenizer("byte-level", bos=False).backend_tokenizer,
    "metaspace": lambda: train_tokenizer("metaspace").backend_tokenizer,
    "legacy": lambda: train_tokenizer("legacy").backend_tokenizer,
    "unigram": unigram,
    "nano": lambda: Tokenizer.from_file(str(nano.folder() / "tokenizer.json")),
}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("as_text", [False, True])
def test_it_reads_as_the_whole_file_would(backend, edit, as_text):
    whole = EDITS[edit](json.loads(backend.to_str()))
    oracle = Tokenizer.from_str(json.dumps({**whole, "truncation": None, "padding": None}))
    found = assembled(backend, EDITS[edit](parts_of(backend)))
    before = backend.to_str()
    for tokenizer in (oracle, found):
        tokenizer.encode_special_tokens = as_text
    for specials in (False, True):
        for text in TEXTS:
            want, got = (one.encode(text, add_special_tokens=specials) for one in (oracle, found))
            assert (got.ids, got.offsets) == (want.ids, want.offsets), text
            assert found.decode(got.ids) == oracle.decode(want.ids)
    assert json.loads(found.to_str()) == json.loads(oracle.to_str())
    assert backend.to_str() == before


def test_ids_that_leave_a_gap_are_kept():
    """Such a file says ids that no order of adding gives."""
    backend = BACKENDS["byte-level"]()
    raw = json.loads(backend.to_str())
    vocabulary = dict(raw["model"]["vocab"])
    rare = random.Random(0).choice([word for word, index in vocabulary.items() if index > 600])
    raw["added_tokens"].append({**raw["added_tokens"][0], "id": vocabulary[rare], "content": rare})
    backend = Tokenizer.from_str(json.dumps(raw))
    found = assembled(backend, plain_text(parts_of(backend)))
    assert {i: t.content for i, t in found.get_added_tokens_decoder().items()} == {
        i: t.content for i, t in backend.get_added_tokens_decoder().items()
    }
    for text in (*TEXTS, rare):
        assert found.encode(text).ids == backend.encode(text).ids
