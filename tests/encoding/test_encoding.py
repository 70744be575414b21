"""The Encoder's vectors are those of `model.encode`: every shape x template x pooling x side, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_base, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import antiphon
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, DataError
from antiphon.model.parity import LIMITS, compare, unlike_texts

WINDOWED = {"sliding_window": 12}
SWITCHED = {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}
SHAPES = {
    "llama": {},
    "qwen2": SWITCHED,
    "qwen3": SWITCHED,
    "mistral": WINDOWED,
    "gemma2": WINDOWED,
    "gemma3": WINDOWED,
    "phi3": {},
    "smollm3": SWITCHED,
    "olmo2": {},
}
TEXTS = [*unlike_texts()[:33], "", " ", "word " * 60]
PROMPT = "find what answers it"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> dict[str, Path]:
    """A tiny base of every supported architecture, half of their layers with a window where they can have one."""
    root = tmp_path_factory.mktemp("shapes")
    return {name: make_base(root / name, name, **options) for name, options in SHAPES.items()}


def stock(base: Path, pooling: str, side: str = "right", **options: object) -> SentenceTransformer:
    """A model as others make them: sentence-transformers' own modules, a prompt glued to the text."""
    module = Transformer(str(base), max_seq_length=200)
    module.tokenizer.padding_side = side
    if module.tokenizer.pad_token is None:
        module.tokenizer.pad_token = module.tokenizer.eos_token
    return SentenceTransformer(
        modules=[module, Pooling(module.get_embedding_dimension(), pooling_mode=pooling, **options), Normalize()],
        prompts={"query": "Instruct: find it\nQuery: ", "document": ""},
    )


def assert_same(model: SentenceTransformer, encoder: Encoder, texts: list[str] = TEXTS, **given_) -> None:
    assert encoder.reason is None
    same = compare(vectors(model, texts, **given_), encoder.encode(texts, **given_))
    assert same.equal, f"{given_}: {same}"


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_every_shape_template_and_pooling(shapes, shape, bidirectional, monkeypatch):
    """Sides alternate over the cells; attention is cut into many blocks, and texts are many in a row."""
    monkeypatch.setattr("antiphon.encoding.kernels.products.BLOCK", 8)
    monkeypatch.setattr("antiphon.encoding.kernels.filled_up.QUERIES", 8)
    for user in ("decoder", "kernels.attention"):  # as if it were in 16 bits
        monkeypatch.setattr(f"antiphon.encoding.{user}.in_blocks", lambda device, dtype: bidirectional or number > 0)
    cells = [("echo", "mean"), ("classical", "last"), ("echo", "weighted_mean"), ("echo-rewrite", "last")]
    for number, (template, pooling) in enumerate(cells):
        model = antiphon.build(
            shapes[shape], template, pooling=pooling, bidirectional=bidirectional, max_tokens=70, dtype="float32"
        )
        model[0].tokenizer.padding_side = ("left", "right")[number % 2]
        for attention, budget in (("matmul", 2000), ("sdpa", 256)):
            encoder = Encoder(model, budget=budget, attention=attention)
            assert_same(model, encoder)
            if number % 2 == 0:
                assert_same(model, encoder, prompt=PROMPT)


@pytest.mark.parametrize("pooling", ["lasttoken", "mean", "weightedmean", "max", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_models_of_others(tiny_base, pooling, side):
    model = stock(tiny_base, pooling, side)
    encoder = Encoder(model, budget=300)
    texts = [text for text in TEXTS if text.strip()]
    assert_same(model, encoder, texts)
    assert_same(model, encoder, texts, prompt_name="query")
    same = compare(model.encode_document(texts), encoder.encode_document(texts))
    assert same.equal, same


def test_a_pooling_that_leaves_the_prompt_out(tiny_base):
    model = stock(tiny_base, "mean", include_prompt=False)
    encoder = Encoder(model)
    texts = [text for text in TEXTS if text.strip()]
    assert_same(model, encoder, texts, prompt_name="query")
    assert not compare(
        vectors(model, texts, prompt_name="query"), vectors(stock(tiny_base, "mean"), texts, prompt_name="query")
    ).equal


def test_a_prompt_that_merges_with_the_text(metaspace_base):
    """Tokenised apart, 'Query: ' and 'word' would be other tokens than together."""
    model = stock(metaspace_base, "lasttoken")
    texts = [text for text in TEXTS if text.strip()]
    for prompt in ("Query: ", "Query:", "Q", "a b "):
        assert_same(model, Encoder(model), texts, prompt=prompt)


def test_one_text_at_a_time_equals_all_at_once(tiny_base):
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=200, dtype="float32")
    encoder = Encoder(model)
    together = encoder.encode(TEXTS, prompt=PROMPT)
    apart = np.stack([encoder.encode(text, prompt=PROMPT) for text in TEXTS])
    assert compare(together, apart).equal
    backwards = encoder.encode(TEXTS[::-1], prompt=PROMPT)[::-1]
    assert compare(together, backwards).equal
    assert not compare(together, encoder.encode(TEXTS)).equal  # the prompt is read
    assert not compare(together, np.roll(together, 1, axis=0)).equal


@pytest.fixture(scope="module")
def echoed(tiny_base) -> tuple[SentenceTransformer, Encoder, np.ndarray]:
    model = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="float32")
    return model, Encoder(model, budget=96), vectors(model, TEXTS)


@settings(max_examples=12, deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=12), prompt=st.sampled_from([None, PROMPT]))
def test_any_list_of_texts(echoed, texts, prompt):
    """Measured among the unlike texts, so that there is a spread."""
    model, encoder, _ = echoed
    ours = encoder.encode(texts + TEXTS, prompt=prompt)
    assert compare(vectors(model, texts + TEXTS, prompt=prompt), ours).equal


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_texts_of_0_to_2000_tokens(tmp_path, shape):
    """One of them is a giant that is cut, in a budget far below them; windows are shorter than the texts."""
    options = {**SHAPES[shape], "max_position_embeddings": 4096}
    if "sliding_window" in options:
        options["sliding_window"] = 300
    base = make_base(tmp_path / "long", shape, **options)
    model = antiphon.build(base, "classical", pooling="mean", max_tokens=2000, dtype="float32")
    long = ["alpha beta " * 200, "gamma " * 1500, "x" * 300_000]
    texts = ["", *unlike_texts()[:29], *long]
    truth = np.concatenate([vectors(model, texts[:30]), vectors(model, long, batch_size=1)])
    assert model[0].preprocess([long[2]])["input_ids"].shape[1] == 2000
    for attention in ("sdpa", "matmul"):
        same = compare(truth, Encoder(model, budget=256, attention=attention).encode(texts))
        assert same.equal, same


def test_settings_mean_what_they_mean_in_encode(echoed):
    model, encoder, _ = echoed
    for given_ in (
        {"normalize_embeddings": True},
        {"truncate_dim": 8},
        {"truncate_dim": 8, "normalize_embeddings": True},
        {"task": "document"},
    ):
        assert_same(model, encoder, **given_)
    assert encoder.encode(TEXTS).dtype == np.float32
    for precision in ("int8", "ubinary"):
        theirs, ours = model.encode(TEXTS, precision=precision), encoder.encode(TEXTS, precision=precision)
        assert theirs.dtype == ours.dtype
        assert (theirs == ours).mean() > 0.99
    assert compare(model.encode_query(TEXTS), encoder.encode_query(TEXTS)).equal
    assert compare(model.encode_document(TEXTS), encoder.encode_document(TEXTS)).equal
    assert encoder.encode("one").shape == model.encode("one").shape


def test_bf16_is_as_near_to_fp32_as_sentence_transformers_is(tiny_base):
    """In 16 bits sentence-transformers differs from itself at another batch size, so fp32 is the judge."""
    exact = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=100, dtype="float32")
    rounded = antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=100, dtype="bfloat16")
    truth = vectors(exact, TEXTS, prompt=PROMPT)
    theirs = compare(truth, vectors(rounded, TEXTS, prompt=PROMPT), limit=LIMITS["bfloat16"])
    for attention in ("sdpa", "matmul"):
        encoder = Encoder(rounded, attention=attention, widen=False)
        assert encoder.reason is None
        assert encoder.mode == attention
        ours = compare(truth, encoder.encode(TEXTS, prompt=PROMPT), limit=LIMITS["bfloat16"])
        assert ours.equal or ours.error_against_spread < 1.5 * theirs.error_against_spread, (ours, theirs)


@pytest.mark.parametrize("shape", ["llama", "gemma3", "qwen2"])
def test_widened_weights_of_16_bits_give_the_vectors_of_float32(bases, shape):
    """The judge is the rounded model itself, with its weights widened for good."""
    rounded = antiphon.build(bases[shape], "echo", pooling="mean", max_tokens=100, dtype="bfloat16")
    rounded.append(Dense(rounded.get_embedding_dimension(), 8))
    before = {name: tensor.clone() for name, tensor in rounded.state_dict().items()}
    encoder = Encoder(rounded, widen=True)
    assert encoder.reason is None
    assert encoder.mode == "varlen, in float32"
    ours = encoder.encode(TEXTS, prompt=PROMPT)
    assert all(torch.equal(tensor, before[name]) for name, tensor in rounded.state_dict().items())
    wide = antiphon.build(bases[shape], "echo", pooling="mean", max_tokens=100, dtype="float32")
    wide.append(Dense(wide.get_embedding_dimension(), 8))
    wide.load_state_dict({name: tensor.float() for name, tensor in rounded.state_dict().items()})
    for name, buffer in wide[0].named_buffers():  # such as Gemma's scale of embeddings
        buffer.copy_(rounded[0].get_buffer(name).float())
    same = compare(vectors(wide, TEXTS, prompt=PROMPT), ours)
    assert same.equal, same
    assert not Encoder(wide, widen=True).mode.endswith("float32")  # it is so already


def test_bad_input_is_a_sentence(echoed):
    _, encoder, _ = echoed
    with pytest.raises(DataError, match="Text 1 is 7 of type int"):
        encoder.encode(["a", 7])
    with pytest.raises(DataError, match="Text 0 is None"):
        list(encoder.encode_iter([None]))
    with pytest.raises(ConfigError, match="no prompt named 'nothing'"):
        encoder.encode(["a"], prompt_name="nothing")
    with pytest.raises(ConfigError, match="precision 'float8'"):
        encoder.encode(["a"], precision="float8")
    with pytest.raises(ConfigError, match="budget is 0"):
        Encoder(encoder.model, budget=0)
    with pytest.raises(ConfigError, match="attention 'flash'"):
        Encoder(encoder.model, attention="flash")
    with pytest.raises(ConfigError, match="linear 'int4'"):
        Encoder(encoder.model, linear="int4")
