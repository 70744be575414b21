"""The whole path against the naive loop: every template, pooling, architecture, tokenizer, side and padding."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conftest import make_base
from oracle import HAND_WRITTEN, INSTRUCTED, Oracle

import antiphon
from antiphon.model.parity import compare, unlike_texts
from antiphon.text.template import prompt_for

TEXTS = [*unlike_texts(), "", " leading space", "a </s> typed by a user", "<s>", "two\nlines  and  runs"]
ALL = [(template, pooling) for template in ("classical", "echo", "classical-write", "echo-rewrite", "eol")
       for pooling in ("last", "mean", "weighted_mean")]  # fmt: skip


@pytest.fixture(scope="module")
def by_tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return {kind: make_base(root / kind, tokenizer=kind) for kind in ("byte-level", "metaspace", "legacy")}


@cache
def oracle_of(base, *, bidirectional=False):
    """The oracle of a base, whose states of a sequence are those of every pooling."""
    oracle = Oracle(base, bidirectional=bidirectional)
    oracle.states = cache(oracle.states)
    return oracle


def expected(oracle, template, side, pooling, *, pieces=None, prompt=""):
    pieces = pieces or HAND_WRITTEN[template, side]
    if (template, pooling) == ("classical", "last"):  # stock modules: the prompt is a string before the text
        prefix = "".join({"TEXT": " ", "PROMPT": f" {prompt}"}.get(piece, piece) for piece in pieces)
        return np.stack([oracle.vector(*oracle.sequence([prefix + text], ""), pooling) for text in TEXTS])
    return np.stack([oracle.vector(*oracle.sequence(pieces, text, prompt), pooling) for text in TEXTS])


@pytest.mark.parametrize("tokenizer", ["byte-level", "metaspace", "legacy"])
@pytest.mark.parametrize(("template", "pooling"), ALL)
def test_every_template_and_pooling_equals_the_naive_loop(template, pooling, tokenizer, by_tokenizer):
    base = by_tokenizer[tokenizer]
    model = antiphon.build(base, template, pooling=pooling, max_tokens=256, dtype="float32")
    want = expected(oracle_of(base), template, "query", pooling)
    parity = compare(model.encode(TEXTS), want)
    assert parity.equal, f"{parity}"
    side = "document" if (template, "document") in HAND_WRITTEN else "query"
    assert compare(model.encode_document(TEXTS), expected(oracle_of(base), template, side, pooling)).equal


@pytest.mark.parametrize("template", ["classical", "echo"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_an_instruction_is_said_once_and_never_pooled(template, pooling, tiny_base):
    model = antiphon.build(tiny_base, template, pooling=pooling, max_tokens=256, dtype="float32")
    prompt = "Given a question, find the answer"
    got = model.encode_query(TEXTS, prompt=prompt_for(model, prompt, "query"))
    want = expected(
        oracle_of(tiny_base), template, "query", pooling, pieces=INSTRUCTED[template, "query"], prompt=prompt
    )
    assert compare(got, want).equal
    assert not compare(got, model.encode_query(TEXTS)).equal


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
@pytest.mark.parametrize(("template", "pooling"), [("echo-rewrite", "mean"), ("classical", "last")])
def test_every_architecture_equals_the_naive_loop(architecture, template, pooling, bidirectional, bases):
    base = bases[architecture]
    model = antiphon.build(
        base, template, pooling=pooling, max_tokens=256, dtype="float32", bidirectional=bidirectional
    )
    want = expected(oracle_of(base, bidirectional=bidirectional), template, "query", pooling)
    parity = compare(model.encode(TEXTS), want)
    assert parity.equal, f"{parity}"


@pytest.mark.parametrize(("template", "pooling"), [("echo", "mean"), ("echo-rewrite", "last"), ("classical", "last")])
def test_padding_batch_order_and_companions_change_nothing(template, pooling, tiny_base):
    model = antiphon.build(tiny_base, template, pooling=pooling, max_tokens=256, dtype="float32")
    alone = np.stack([model.encode(text) for text in TEXTS])
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for side in ("left", "right"):
        model[0].tokenizer.padding_side = side
        for batch_size in (1, 3, 64):
            shuffled = model.encode([TEXTS[n] for n in order], batch_size=batch_size)
            assert compare(shuffled[np.argsort(order)], alone).equal, (side, batch_size)
    with_giant = model.encode([*TEXTS, "word " * 2000])[: len(TEXTS)]
    assert compare(with_giant, alone).equal


def test_a_family_without_bos_and_with_added_tokens_equals_the_naive_loop(tmp_path):
    base = make_base(tmp_path / "qwen-like", "qwen3", bos=False)
    texts = [*TEXTS, "call <tool_call> now", "<|fim|>"]
    oracle = Oracle(base)
    for pooling in ("last", "mean"):
        model = antiphon.build(base, "echo-rewrite", pooling=pooling, max_tokens=256, dtype="float32")
        features = model[0].preprocess(texts)
        ids = [
            row[mask.bool()].tolist()
            for row, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
        ]
        assert all(row[0] != oracle.tokenizer.bos_token_id for row in ids)
        tool = oracle.tokenizer.convert_tokens_to_ids("<tool_call>")
        assert all(tool not in row for row in ids), "what a user types is text"
        want = [oracle.sequence(HAND_WRITTEN["echo-rewrite", "query"], text)[0] for text in TEXTS]
        assert ids[: len(TEXTS)] == want
