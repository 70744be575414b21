"""The contrastive loss on real pipelines: against a ten-line InfoNCE, with and without the gradient cache."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from peft import LoraConfig
from sentence_transformers.base.losses.gradcache import _create_minibatch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.training.losses import ContrastiveLoss, ContrastiveSettings, contrastive_collator
from antiphon.training.losses.text_keys import TEXT_KEY

PAIRS = [
    ("red apples", "fruit of the orchard", "a hammer", "nails and a saw, all of them in the same old box"),
    ("a blue sea", "waves and salt, and wind over it for days on end", "sand", "dust"),
    ("green hills", "grass and sheep", "a cellar without any windows at all", "coal"),
    ("grey stone", "walls", "feathers", "silk"),
    ("", "nothing was asked", "an answer", "x"),
]
COLUMNS = ("anchor", "positive", "negative_1", "negative_2")
CACHES = {
    f"{name}{kind}": {**cache, "packed": kind == ""}
    for kind in ("", "-padded")
    for name, cache in {"plain": {}, "sized": {"mini_batch_size": 2}, "tokens": {"mini_batch_tokens": 40}}.items()
}


def built(base, template="echo", pooling="mean", **options):
    options = {"max_tokens": 64, "dtype": "float32", "device": "cpu", **options}
    return antiphon.build(base, template, pooling=pooling, **options).train()


def features_of(model, pairs=PAIRS):
    rows = [dict(zip(COLUMNS, pair, strict=False)) for pair in pairs]
    batch = contrastive_collator(model)(rows)
    return [
        {key.removeprefix(f"{column}_"): value for key, value in batch.items() if key.startswith(f"{column}_")}
        for column in COLUMNS[: len(pairs[0])]
    ]


def without_keys(column):
    return {key: value for key, value in column.items() if key != TEXT_KEY}


def naive(model, pairs=PAIRS, present=None, scale=50.0, width=None):
    """Ten lines: every text alone, every row in a loop."""
    columns = [
        [model(model.preprocess([text]))["sentence_embedding"][0][:width] for text in c]
        for c in zip(*pairs, strict=True)
    ]
    queries, *documents = columns
    total = 0.0
    for row, query in enumerate(queries):
        candidates = [
            vector
            for k, column in enumerate(documents)
            for j, vector in enumerate(column)
            if k == 0 or present is None or present[j][k - 1]
        ]
        scores = scale * torch.stack([F.cosine_similarity(query, other, dim=0) for other in candidates])
        total = total + F.cross_entropy(scores[None], torch.tensor([row]))
    return total / len(queries)


def learned(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(found, wanted, tolerance=1e-5):
    assert found.keys() == wanted.keys()
    assert any(gradient.any() for gradient in wanted.values())
    most = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance * most, msg=name)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    ("template", "pooling"), [("echo", "mean"), ("echo", "last"), ("classical", "last"), ("echo-rewrite", "last")]
)
def test_equals_ten_lines(tiny_base, template, pooling, cache):
    model = built(tiny_base, template, pooling)
    found = ContrastiveLoss(model, ContrastiveSettings(**CACHES[cache]))(features_of(model))
    wanted = naive(model)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    same(learned(model, found), learned(model, wanted))


@pytest.mark.parametrize("cache", ["plain", "sized", "sized-padded"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "mistral", "gemma3"])
def test_of_every_architecture(bases, architecture, bidirectional, cache):
    model = built(bases[architecture], bidirectional=bidirectional)
    found = ContrastiveLoss(model, ContrastiveSettings(**CACHES[cache]))(features_of(model))
    wanted = naive(model)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    same(learned(model, found), learned(model, wanted), 1e-4)


@pytest.mark.parametrize("cache", CACHES)
def test_ragged_negatives_are_as_if_they_were_not_there(tiny_base, cache):
    model = built(tiny_base)
    present = [[1, 0], [1, 1], [0, 0], [1, 1], [0, 1]]
    pairs = [
        (*pair[:2], *(text if here else "" for text, here in zip(pair[2:], row, strict=True)))
        for pair, row in zip(PAIRS, present, strict=True)
    ]
    loss = ContrastiveLoss(model, ContrastiveSettings(temperature=1.0, **CACHES[cache]))
    found = loss(features_of(model, pairs), torch.tensor(present))
    wanted = naive(model, present=present, scale=1.0)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    same(learned(model, found), learned(model, wanted))
    assert loss(features_of(model, pairs)).item() != pytest.approx(wanted.item(), abs=1e-2)


@pytest.mark.parametrize("cache", CACHES)
def test_with_lora(tiny_base, cache):
    model = built(tiny_base)
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    found = learned(model, ContrastiveLoss(model, ContrastiveSettings(**CACHES[cache]))(features_of(model)))
    assert all("lora" in name for name in found)
    same(found, learned(model, naive(model)))


@pytest.mark.parametrize("packed", [True, False])
def test_the_cache_replays_dropout(tiny_base, packed):
    model = built(tiny_base)
    for layer in model[0].model.layers:
        layer.self_attn.attention_dropout = 0.5
    features = features_of(model)
    loss = ContrastiveLoss(model, ContrastiveSettings(mini_batch_size=2, packed=packed))
    torch.manual_seed(1)
    found = loss(features)
    gradients = learned(model, found)
    torch.manual_seed(1)  # the same mini-batches in the same order, in one graph
    texts, bare = loss._texts(features, None), [without_keys(column) for column in features]
    vectors = [
        [loss._embed([_create_minibatch(column, start, start + 2)])[0] for start in (0, 2, 4)] for column in bare
    ]
    plain = loss.calculate_loss(vectors, texts)
    assert found.item() == pytest.approx(plain.item(), abs=1e-6)
    same(gradients, learned(model, plain))
    torch.manual_seed(2)
    assert loss(features).item() != pytest.approx(plain.item(), abs=1e-3)


@pytest.mark.parametrize("cache", ["plain", "sized"])
@pytest.mark.parametrize(
    "options",
    [
        {"directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")},
        {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
        {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0},
        {"hardness_mode": "hard_negatives", "hardness_strength": 5.0},
        {"hardness_mode": "all_negatives", "hardness_strength": 5.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_equals_sentence_transformers(tiny_base, options, cache):
    model = built(tiny_base)
    stock = MultipleNegativesRankingLoss(model, scale=20, **options)
    found = ContrastiveLoss(model, ContrastiveSettings(temperature=0.05, **options, **CACHES[cache]))
    wanted = stock([without_keys(column) for column in features_of(model)], None)
    loss = found(features_of(model))
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    same(learned(model, loss), learned(model, wanted))


@pytest.mark.parametrize("cache", ["plain", "sized"])
def test_matryoshka(tiny_base, cache):
    model = built(tiny_base)
    settings = ContrastiveSettings(matryoshka=(8, 32), matryoshka_weights=(0.25, 1.0), **CACHES[cache])
    found = ContrastiveLoss(model, settings)(features_of(model))
    gradients = learned(model, found)
    wanted = 0.25 * naive(model, width=8) + naive(model, width=32)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    same(gradients, learned(model, wanted))
    stock = MatryoshkaLoss(model, CachedMultipleNegativesRankingLoss(model, scale=50), [8, 32], [0.25, 1.0])
    features = [without_keys(column) for column in features_of(model)]
    assert stock(features, None).item() == pytest.approx(wanted.item(), abs=1e-5)


def test_identical_texts_are_no_negatives(tiny_base):
    model = built(tiny_base)
    pairs = [("q one", "same words"), ("q two", " same words "), ("q three", "other words"), ("other words", "last")]
    loss = ContrastiveLoss(model, ContrastiveSettings())
    columns = [
        [model(model.preprocess([text]))["sentence_embedding"][0] for text in column]
        for column in zip(*pairs, strict=True)
    ]
    # what each row is scored against: the last two rows share a text
    against = [(0, 2, 3), (1, 2, 3), (2, 0, 1), (3, 0, 1)]
    wanted = 0.0
    for row, kept in enumerate(against):
        cosines = [F.cosine_similarity(columns[0][row], columns[1][j], dim=0) for j in kept]
        wanted = wanted + F.cross_entropy(50 * torch.stack(cosines)[None], torch.tensor([0])) / 4
    found = loss(features_of(model, pairs))
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    without = ContrastiveLoss(model, ContrastiveSettings(mask_identical_texts=False))(features_of(model, pairs))
    assert without.item() == pytest.approx(naive(model, pairs).item(), abs=1e-5)
    assert without.item() != pytest.approx(found.item(), abs=1e-3)


def test_the_margin_leaves_out_what_is_too_close(tiny_base):
    model = built(tiny_base)
    features, wanted = features_of(model), naive(model).item()
    far = ContrastiveLoss(model, ContrastiveSettings(false_negative_margin=3.0))(features)
    assert far.item() == pytest.approx(wanted, abs=1e-5)
    none_left = ContrastiveLoss(model, ContrastiveSettings(false_negative_margin=-3.0))(features)
    assert none_left.item() == pytest.approx(0.0, abs=1e-6)
    some = ContrastiveLoss(model, ContrastiveSettings(false_negative_margin=0.0))(features)
    assert 0 < some.item() < wanted


def test_scores_are_in_fp32_under_autocast(tiny_base):
    """At temperature 0.02 the rounding of a bf16 cosine is worth a tenth of a nat."""
    model = built(tiny_base)
    vectors = [[column] for column in torch.randn(4, 6, 32)]
    loss = ContrastiveLoss(model, ContrastiveSettings())
    with torch.autocast("cpu", torch.bfloat16):
        under = loss.calculate_loss(vectors)
    assert under.item() == loss.calculate_loss(vectors).item()


@pytest.mark.parametrize("within", [False, True])
def test_under_autocast_both_passes_of_the_cache_are_one(tiny_base, within):
    """With the model's forward wrapped and the backward outside, as the trainer does it, and as it may be done.

    The first pass casts weights without a gradient; the second has to compute in what the first did.
    """
    gradients, passes = {}, {}
    for name in ("plain", "sized", "tokens"):
        model = built(tiny_base)
        loss = ContrastiveLoss(model, ContrastiveSettings(**CACHES[name]))
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        chosen, by_products = [], loss.packer._by_products
        loss.packer.products = True
        loss.packer._by_products = lambda rows, ask=by_products, said=chosen: said.append(ask(rows)) or said[-1]
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(features_of(model), None)
            if within:
                value.backward()
        if not within:
            value.backward()
        parameters = dict(model.named_parameters())
        gradients[name] = torch.cat([one.grad.flatten() for one in parameters.values() if one.grad is not None])
        passes[name] = chosen
    for name in ("sized", "tokens"):
        assert len(passes[name]) > 2
        assert all(passes[name]), passes[name]
        apart = (gradients[name] - gradients["plain"]).norm() / gradients["plain"].norm()
        assert apart < 0.05, (name, apart)


def test_nothing_is_learned_without_gradients(tiny_base):
    model = built(tiny_base).eval()
    for options in CACHES.values():
        with torch.no_grad():
            loss = ContrastiveLoss(model, ContrastiveSettings(**options))(features_of(model))
        assert not loss.requires_grad
        assert loss.item() == pytest.approx(naive(model).item(), abs=1e-5)


def test_what_cannot_be_asked(tiny_base):
    for options, words in [
        ({"temperature": 0.0}, "temperature"),
        ({"mini_batch_size": 0}, "mini_batch_size"),
        ({"mini_batch_tokens": 0}, "mini_batch_tokens"),
        ({"directions": ("doc_to_doc",)}, "query_to_doc"),
        ({"directions": ("query_to_doc", "up")}, "query_to_doc"),
        ({"directions": ("query_to_doc", "doc_to_doc"), "partition_mode": "per_direction"}, "joint"),
        ({"partition_mode": "none"}, "partition_mode"),
        ({"hardness_mode": "odd", "hardness_strength": 1.0}, "hardness_mode"),
        ({"hardness_mode": "hard_negatives"}, "strength"),
        ({"hardness_strength": 1.0}, "mode"),
        ({"matryoshka": (8, 8)}, "matryoshka"),
        ({"matryoshka": (8,), "matryoshka_weights": (1.0, 2.0)}, "weights"),
    ]:
        with pytest.raises(ConfigError, match=words):
            ContrastiveSettings(**options)
    model = built(tiny_base)
    with pytest.raises(ConfigError, match="64"):
        ContrastiveLoss(model, ContrastiveSettings(matryoshka=(64,)))
    loss, features = ContrastiveLoss(model), features_of(model)
    with pytest.raises(DataError, match="two text columns"):
        loss(features[:1])
    with pytest.raises(DataError, match="2 hard negatives"):
        loss(features, torch.ones(5, 1))
    with pytest.raises(DataError, match="2 hard negatives"):
        loss(features, torch.ones(5))
    with pytest.raises(DataError, match="contrastive_collator"):
        loss([without_keys(column) for column in features])


def test_eos_learns_where_it_pads(tmp_path):
    """After Stage I was saved and loaded again, too: a load freezes the row of the padding token."""
    base = make_base(tmp_path / "base", pad_token_id=2)
    model = antiphon.load(antiphon.save(built(base, pooling="last"), tmp_path / "saved"), device="cpu").train()
    assert model[0].model.get_input_embeddings().padding_idx == 2
    for options in CACHES.values():
        gradients = learned(model, ContrastiveLoss(model, ContrastiveSettings(**options))(features_of(model)))
        assert gradients["0.model.embed_tokens.weight"][2].any()
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [2]}))
    gradients = learned(model, ContrastiveLoss(model, ContrastiveSettings(mini_batch_size=2))(features_of(model)))
    (delta,) = [gradient for name, gradient in gradients.items() if "trainable_tokens_delta" in name]
    assert delta.any()
