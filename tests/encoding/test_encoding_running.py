"""The Encoder at its edges: packing, duplicates, memory, interrupts, fallbacks, weights that change."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch
from conftest import vectors
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, Pooling, WordWeights
from torch import nn

import antiphon
from antiphon.encoding import Encoder, runner
from antiphon.encoding.decoder import Decoder
from antiphon.encoding.kernels.varlen import Spans
from antiphon.encoding.masks import packed_mask
from antiphon.encoding.packing import ALONE, batches, end_to_end
from antiphon.encoding.prefix import KEPT, PrefixCache
from antiphon.encoding.tokenised import Reading, common, shared_by_probes
from antiphon.model.parity import compare, unlike_texts

TEXTS = unlike_texts()


@pytest.fixture
def model(tiny_base) -> SentenceTransformer:
    return antiphon.build(tiny_base, "echo", pooling="mean", max_tokens=64, dtype="float32")


@pytest.mark.parametrize("laid", [batches, end_to_end])
@given(lengths=st.lists(st.integers(1, ALONE + 300), min_size=1, max_size=60), budget=st.integers(1, 4096))
def test_batches_hold_every_text_once_within_the_budget(laid, lengths, budget):
    made = list(laid(lengths, budget))
    assert sorted(text for batch in made for text in batch.texts) == list(range(len(lengths)))
    for batch in made:
        assert batch.rows * batch.width <= budget or len(batch.placed) == 1
        taken = np.zeros((batch.rows, batch.width), dtype=int)
        for place in batch.placed:
            assert place.length == lengths[place.text]
            assert place.start + place.length <= batch.width
            taken[place.row, place.start : place.start + place.length] += 1
        assert taken.max() == 1
        assert laid is batches or (taken == 1).all()


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).lognormal(4, 0.6, 2000).astype(int).clip(1, 500).tolist()
    for budget in (1024, 4096):
        room = sum(batch.rows * batch.width for batch in batches(lengths, budget))
        assert sum(lengths) / room > 0.9
        made = list(end_to_end(lengths, budget))
        assert sum(batch.width for batch in made) == sum(lengths)
        assert len(made) == -(-sum(lengths) // budget)  # no more forward passes than it takes
    short = [7] * 1000
    assert sum(short) / sum(batch.rows * batch.width for batch in batches(short, 2048)) > 0.95


def naive_sees(query: tuple[int, int], key: tuple[int, int], causal: bool, window: int | None) -> bool:
    """Whether a token (text, position) sees another; text -2 is the prefix."""
    same = key[0] in (query[0], -2) and query[0] >= 0
    apart = query[1] - key[1]
    near = window is None or (apart < window if causal else abs(apart) <= window)
    return same and near and (apart >= 0 or not causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
def test_masks_keep_texts_apart(causal, window):
    prefix = 2 if causal else 0
    text_RW = torch.tensor([[0, 0, 0, 1, 1, -1], [2, 2, 2, 2, 2, 2]])
    position_RW = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]) + prefix
    mask = packed_mask(text_RW, position_RW, prefix=prefix, causal=causal, window=window)[:, 0]
    for row in range(2):
        own = list(zip(text_RW[row].tolist(), position_RW[row].tolist(), strict=True))
        keys = [(-2, at) for at in range(prefix)] + own
        for at, query in enumerate(own):
            if query[0] >= 0:
                assert mask[row, at].tolist() == [naive_sees(query, key, causal, window) for key in keys]
    assert mask.any(dim=-1).all()  # padding sees something: no softmax over nothing


def test_prefix_of_rows():
    assert common([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == [1, 2]
    assert common([[1], [2]]) == []
    assert common([]) == []


def test_what_stands_before_every_text_is_found_and_run_once(model, monkeypatch):
    instruction = "find what answers the question in full"
    reading = Reading(instruction, None)
    whole = model[0].preprocess(["unlike", "other"], prompt=instruction)
    shared = shared_by_probes(model[0], reading)
    assert len(shared) > 10
    assert whole["input_ids"][0, : len(shared)].tolist() == shared
    encoder = Encoder(model)
    widths = []
    plain_layer = model[0].model.layers[0].forward
    monkeypatch.setattr(
        model[0].model.layers[0],
        "forward",
        lambda hidden, **k: widths.append(hidden.shape[:2]) or plain_layer(hidden, **k),
    )
    with torch.no_grad():
        model[0].model.norm.weight.mul_(1)  # the view is made anew after any change of the model
    encoder.encode(["one text"], prompt=instruction)
    assert (1, len(shared)) in widths
    widths.clear()
    encoder.encode(["another text", "a third"], prompt=instruction)
    assert (1, len(shared)) not in widths
    assert sum(rows * width for rows, width in widths) < whole["attention_mask"].sum()


def test_prefixes_kept_are_bounded(model):
    kept, decoder = PrefixCache(), Decoder.of(model[0].model)
    for number in range(KEPT + 5):
        assert len(kept.get(decoder, [1, 2, number])) == 3
    assert 1 < len(kept) <= KEPT


def test_no_texts_one_text_and_very_many_alike(model, monkeypatch):
    encoder = Encoder(model)
    assert encoder.encode([]).shape == (0, 32)
    assert list(encoder.encode_iter([])) == []
    tokenised: list[str] = []
    plain = model[0].preprocess
    monkeypatch.setattr(model[0], "preprocess", lambda texts, **more: tokenised.extend(texts) or plain(texts, **more))
    many = encoder.encode(["a", "b", "a b", "c"] * 250_000)
    assert {"a", "b", "a b", "c"} <= set(tokenised)
    assert len(tokenised) < 20  # each once, and the probes of what stands before them
    assert many.shape == (1_000_000, 32)
    assert (many[::4] == many[0]).all()
    assert not np.allclose(many[0], many[1])


def test_streaming_keeps_order_and_holds_one_window(model, monkeypatch):
    monkeypatch.setattr("antiphon.encoding.encoder.WINDOW", 20)
    encoder = Encoder(model)
    drawn = 0

    def source():
        nonlocal drawn
        for text in TEXTS * 3:
            drawn += 1
            yield text

    found = []
    for vector in encoder.encode_iter(source()):
        assert vector.shape == (32,)
        found.append(vector)
        assert drawn - len(found) < 20  # no more texts are held than one window has
    assert compare(np.stack(found), vectors(model, TEXTS * 3)).equal


def fail_above(patch: pytest.MonkeyPatch, layer: nn.Module, tokens: int, error: type[Exception], words: str) -> None:
    """Have every layer of a class, those of a view too, fail for more tokens than these."""
    plain_forward = type(layer).forward

    def forward(self: nn.Module, hidden: torch.Tensor, *args: object, **kwargs: object) -> object:
        if hidden.shape[0] * hidden.shape[1] > tokens:
            raise error(words)
        return plain_forward(self, hidden, *args, **kwargs)

    patch.setattr(type(layer), "forward", forward)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "DefaultCPUAllocator: not enough memory"),
    ],
)
def test_out_of_memory_halves_the_budget_and_goes_on(model, monkeypatch, error, words):
    truth = vectors(model, TEXTS)
    encoder = Encoder(model, budget=2048)
    fail_above(monkeypatch, model[0].model.layers[0], 300, error, words)
    assert compare(truth, encoder.encode(TEXTS)).equal
    assert 100 < encoder.budget <= 300
    assert compare(truth, encoder.encode(TEXTS)).equal


def test_other_errors_and_texts_that_never_fit_are_raised(model, monkeypatch):
    never, broken = Encoder(model, budget=512), Encoder(model, budget=512)
    with monkeypatch.context() as patch:
        fail_above(patch, model[0].model.layers[0], 10, RuntimeError, "not enough memory")
        with pytest.raises(RuntimeError, match="not enough memory"):
            never.encode(TEXTS)
    fail_above(monkeypatch, model[0].model.layers[0], 10, RuntimeError, "a broken kernel")
    with pytest.raises(RuntimeError, match="a broken kernel"):
        broken.encode(TEXTS)
    assert broken.budget == 512


def test_an_interrupt_leaves_no_thread(model, monkeypatch):
    monkeypatch.setattr(runner, "WINDOW", 8)
    encoder = Encoder(model, budget=256)
    calls = []

    def interrupted(*args: object) -> None:
        calls.append(threading.active_count())
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "vectors_of", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(TEXTS)
    assert calls[0] > before  # one was reading ahead
    assert threading.active_count() == before
    monkeypatch.undo()
    assert compare(vectors(model, TEXTS), encoder.encode(TEXTS)).equal  # and the lock is free


def test_several_windows_and_calls_from_another_thread(model, monkeypatch):
    monkeypatch.setattr(runner, "WINDOW", 8)
    encoder = Encoder(model, budget=256)
    found: list[np.ndarray] = []
    workers = [threading.Thread(target=lambda: found.append(encoder.encode(TEXTS))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    truth = vectors(model, TEXTS)
    assert len(found) == 3
    assert all(compare(truth, each).equal for each in found)


def test_weights_attention_and_length_that_change_are_noticed(model):
    encoder = Encoder(model)
    before = encoder.encode(TEXTS, prompt="find the answer to it")
    with torch.no_grad():
        model[0].model.layers[0].self_attn.k_proj.weight.mul_(1.7)
    after = encoder.encode(TEXTS, prompt="find the answer to it")
    assert not compare(before, after).equal
    assert compare(vectors(model, TEXTS, prompt="find the answer to it"), after).equal
    model[0].model.config.is_causal = False
    assert compare(vectors(model, TEXTS), encoder.encode(TEXTS)).equal
    model.max_seq_length = 24
    assert compare(vectors(model, TEXTS), encoder.encode(TEXTS)).equal


def test_the_model_itself_is_left_alone(model):
    kinds = [type(part) for part in model.modules()]
    attention = model[0].model.config._attn_implementation
    Encoder(model).encode(TEXTS, prompt="find the answer")
    assert [type(part) for part in model.modules()] == kinds
    assert model[0].model.config._attn_implementation == attention


def test_where_it_cannot_it_says_why_once_and_falls_back(tiny_base, caplog):
    module = Transformer(str(tiny_base))
    module.tokenizer.pad_token = module.tokenizer.eos_token
    pooling = Pooling(module.get_embedding_dimension(), pooling_mode="mean")
    strange = SentenceTransformer(modules=[module, WordWeights([], {}), pooling])
    with caplog.at_level(logging.WARNING, logger="antiphon"):
        encoder = Encoder(strange)
        assert "WordWeights" in encoder.reason or "no pooling" in encoder.reason
    assert [record.getMessage() for record in caplog.records if "model.encode" in record.getMessage()] == [
        encoder.reason
    ]
    known = SentenceTransformer(modules=[module, pooling, Dropout(0.5)])
    assert Encoder(known).reason is None


@pytest.mark.falls_back
def test_a_fallback_gives_what_encode_gives(model, monkeypatch):
    monkeypatch.setattr("antiphon.encoding.encoder.unsupported_reason", lambda model: "a test says so")
    encoder = Encoder(model)
    assert encoder.reason.startswith("Texts go through model.encode, 2 to 5 times slower, because a test says so; ")
    truth = vectors(model, TEXTS, prompt="find it", normalize_embeddings=True)
    ours = encoder.encode([*TEXTS, *TEXTS], prompt="find it", normalize_embeddings=True)
    assert compare(truth, ours[: len(TEXTS)]).equal
    assert compare(model.encode_document(TEXTS), encoder.encode_document(TEXTS)).equal
    assert np.allclose(np.stack(list(encoder.encode_iter(TEXTS))), vectors(model, TEXTS), atol=1e-5)


@pytest.mark.falls_back
def test_a_model_that_packs_wrongly_is_found_out(model, monkeypatch):
    real = packed_mask

    def leaking(*args: object, **kwargs: object) -> torch.Tensor:
        return torch.ones_like(real(*args, **kwargs))

    monkeypatch.setattr("antiphon.encoding.masks.packed_mask", leaking)
    assert "differ" in Encoder(model, attention="sdpa").reason


def test_texts_end_to_end_that_see_each_other_are_found_out(model, monkeypatch):
    real = Spans.of
    monkeypatch.setattr(Spans, "of", lambda lengths, *given: real([sum(lengths)], *given))
    assert "differ" in Encoder(model, attention="varlen").reason
    encoder = Encoder(model)
    assert encoder.reason is None
    assert encoder.mode == "sdpa"


def test_a_text_without_any_token(tmp_path):
    from conftest import make_base

    base = make_base(tmp_path / "bare", bos=False)
    module = Transformer(str(base))
    module.tokenizer.pad_token = module.tokenizer.eos_token
    bare = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), pooling_mode="lasttoken")])
    texts = ["", *TEXTS]
    ours, theirs = Encoder(bare).encode(texts), vectors(bare, texts)
    assert np.allclose(ours[0], theirs[0], atol=1e-5)
    assert compare(theirs[1:], ours[1:]).equal
