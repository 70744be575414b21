"""ReconstructionLoss against a hand-written loop: plain transformers, one pair at a time, no padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_base
from oracle import HAND_WRITTEN, Oracle
from sentence_transformers.sentence_transformer.modules import Normalize

import antiphon
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.training.losses import ReconstructionLoss, ReconstructionSettings, content_collator
from antiphon.training.losses.decoding import states
from antiphon.training.losses.head import embedding_of

PAIRS = [
    ("what cuts a line into words", "The splitter walks over the line and yields every word it finds."),
    ("rain", "Water falls from clouds; a gauge measures it in millimetres, and farmers wait for it."),
    ("how long is a river of the north", "Some are short."),
    ("a </s> typed by a user", "Then <s> again, which is text and no token."),
]
TEMPLATES = {"classical": "stock", "echo": "slots"}


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    """The same tiny Llama with an untied and with a tied head."""
    root = tmp_path_factory.mktemp("heads")
    return {tied: make_base(root / str(tied), tie_word_embeddings=tied) for tied in (False, True)}


def features_of(model, pairs=PAIRS):
    """Features as the trainer hands them over: collated by column, then taken apart."""
    collate = content_collator(model)
    collate.router_mapping = {"anchor": "query", "positive": "document"}
    if "Query: " in (model.prompts or {}).values():  # a stock model: prefixes are prompts
        collate.prompts = {"anchor": model.prompts["query"], "positive": model.prompts["document"]}
    batch = collate([{"anchor": query, "positive": document} for query, document in pairs])
    return [
        {key.removeprefix(column): value for key, value in batch.items() if key.startswith(column)}
        for column in ("anchor_", "positive_")
    ]


class Hand:
    """The paper's two directions, written down as plainly as can be."""

    def __init__(self, base, template, *, bidirectional=False):
        self.oracle = Oracle(base, bidirectional=bidirectional)
        self.template, self.bidirectional = template, bidirectional
        self.model = self.oracle.model

    def vector(self, text, side):
        pieces = HAND_WRITTEN[self.template, side]
        if self.template == "classical":
            pieces = ["".join({"TEXT": " "}.get(piece, piece) for piece in pieces) + text]
        ids, _ = self.oracle.sequence(pieces, text)
        return self.model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]

    def content(self, text):
        return torch.tensor(self.oracle.ids(" " + text, first=False))

    def decode(self, vectors, targets):
        """Mean cross-entropy over every target token of the batch."""
        losses = []
        for vector, target in zip(vectors, targets, strict=True):
            ids = self.content(target)
            embedded = torch.cat([vector[None], self.model.get_input_embeddings()(ids)])
            causal = {"is_causal": True} if self.bidirectional else {}
            logits = self.model(inputs_embeds=embedded[None], use_cache=False, **causal).logits[0]
            losses.append(F.cross_entropy(logits[:-1], ids, reduction="none"))
        return torch.cat(losses).mean()

    def losses(self, alpha, *, detach=False, own_side=0.0):
        queries, documents = zip(*PAIRS, strict=True)
        of_query = [self.vector(text, "query") for text in queries]
        of_document = [self.vector(text, "document") for text in documents]
        if detach:
            of_query, of_document = ([vector.detach() for vector in part] for part in (of_query, of_document))
        found = {
            "ebq2d": alpha * self.decode(of_query, documents),
            "ebd2q": (1 - alpha) * self.decode(of_document, queries),
        }
        if own_side:
            found["own"] = own_side * (self.decode(of_query, queries) + self.decode(of_document, documents))
        return found


def built(base, template, **options):
    return antiphon.build(
        base, template, pooling="last", dtype="float32", device="cpu", max_tokens=200, **options
    ).train()


def gradients(model):
    return {
        name.removeprefix("0.").replace("model.", "", 1): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.7, "own_side": 0.5}, {"detach": True}], ids=str)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_equals_the_hand_written_loop(two_heads, tied, template, settings, packed):
    model, hand = built(two_heads[tied], template), Hand(two_heads[tied], template)
    assert hasattr(model[0], "template") == (TEMPLATES[template] == "slots")
    loss = ReconstructionLoss(model, ReconstructionSettings(**settings, packed=packed))
    assert (loss.packer is not None) == packed
    found = loss(features_of(model))
    wanted = hand.losses(**{"alpha": 0.2, **settings})
    assert list(found) == list(wanted)
    for key in wanted:
        assert found[key].item() == pytest.approx(wanted[key].item(), abs=1e-5)
    sum(found.values()).backward()
    sum(wanted.values()).backward()
    mine = gradients(model)
    theirs = {
        name.removeprefix("model.").replace("lm_head", "head"): parameter.grad
        for name, parameter in hand.model.named_parameters()
    }
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    assert any(name == "head.weight" for name in mine) != tied


def test_other_families_scale_and_cap_their_logits(tmp_path):
    """Gemma 2 caps, Granite divides, Cohere multiplies: the loss is that of their own causal LM."""
    from conftest import SIZES, train_tokenizer
    from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

    words = train_tokenizer("byte-level")
    for config in (
        Gemma2Config(**SIZES, vocab_size=len(words), final_logit_softcapping=0.5, attn_implementation="eager"),
        GraniteConfig(**SIZES, vocab_size=len(words), logits_scaling=7.0, embedding_multiplier=3.0),
        CohereConfig(**SIZES, vocab_size=len(words), logit_scale=0.3),
    ):
        folder = tmp_path / config.model_type
        torch.manual_seed(7)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        words.save_pretrained(folder)
        model, hand = built(folder, "echo"), Hand(folder, "echo")
        found = ReconstructionLoss(model)(features_of(model))
        for key, wanted in hand.losses(0.2).items():
            assert found[key].item() == pytest.approx(wanted.item(), abs=1e-5), config.model_type


def test_logits_that_the_head_does_not_explain_are_refused(two_heads):
    model = built(two_heads[True], "echo")
    model[0].model.config.logit_scale = 2.0  # Llama has no such thing
    with pytest.raises(ModelError, match="llama does more to its logits"):
        ReconstructionLoss(model)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_gradients_reach_the_encoding_pass_unless_detached(two_heads, template, detach, packed):
    model = built(two_heads[False], template)
    loss = ReconstructionLoss(model, ReconstructionSettings(detach=detach, packed=packed))
    caught = []
    model[1].register_forward_hook(lambda module, given, out: caught.append(out["sentence_embedding"]))
    found = loss(features_of(model))
    # both sides are encoded before anything is decoded; rows are pooled too, for nothing
    encoded = caught[1:3] if packed else caught[:2]
    assert all(vector.shape == (len(PAIRS), 32) for vector in encoded)
    pulled = torch.autograd.grad(sum(found.values()), encoded, allow_unused=True)
    assert [part is None or not part.any() for part in pulled] == [detach, detach]


@pytest.mark.parametrize("template", TEMPLATES)
def test_padding_side_and_companions_change_nothing(two_heads, template):
    model = built(two_heads[False], template)
    loss = ReconstructionLoss(model)
    right = loss(features_of(model))
    model.tokenizer.padding_side = "left"
    features = features_of(model)
    assert not features[0]["attention_mask"][:, 0].all()  # it is padded on the left now
    left = loss(features)
    wider = features_of(model, [*PAIRS, ("x", "long " * 60)])
    wide = loss(
        [{key: value[:-1] if torch.is_tensor(value) else value for key, value in part.items()} for part in wider]
    )
    for key in right:
        assert left[key].item() == pytest.approx(right[key].item(), abs=2e-6)
        assert wide[key].item() == pytest.approx(right[key].item(), abs=2e-6)


def test_padding_ids_are_never_read(two_heads):
    """Only masks say what is padding: any id may stand there, and the id that pads may be a word."""
    model = built(two_heads[False], "echo")
    loss = ReconstructionLoss(model)
    features = features_of(model)
    before = loss(features)
    for part in features:
        part["content_ids"] = part["content_ids"].masked_fill(part["content_mask"] == 0, 55)
        part["input_ids"] = part["input_ids"].masked_fill(part["attention_mask"] == 0, 56)
    after = loss(features)
    assert {key: value.item() for key, value in before.items()} == {key: value.item() for key, value in after.items()}


def test_features_are_left_as_they_are(two_heads):
    for template in TEMPLATES:
        model = built(two_heads[False], template)
        features = features_of(model)
        keys = [list(part) for part in features]
        ReconstructionLoss(model)(features)
        assert [list(part) for part in features] == keys


@pytest.mark.parametrize("chunk_size", [1, 3, 10_000])
def test_chunks_change_nothing(two_heads, chunk_size):
    model = built(two_heads[True], "echo")
    features, found = features_of(model), {}
    for size in (7, chunk_size):
        model.zero_grad()
        losses = ReconstructionLoss(model, ReconstructionSettings(chunk_size=size))(features)
        sum(losses.values()).backward()
        found[size] = (torch.stack(list(losses.values())).detach(), gradients(model)["embed_tokens.weight"])
    torch.testing.assert_close(found[7], found[chunk_size], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("padded", [False, True])
def test_a_later_target_never_leaks(two_heads, template, implementation, padded):
    model = built(two_heads[False], template, bidirectional=True).eval()
    model[0].model.set_attn_implementation(implementation)
    ReconstructionLoss(model)  # makes decode passes possible
    embedding = embedding_of(model[0])
    ids = torch.randint(10, 200, (3, 9), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[:, 5] += 1
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 7:] = 0
    with torch.no_grad():
        causal, moved = (states(model, embedding(part), mask, causal=True) for part in (ids, changed))
        assert (causal[:, :5] - moved[:, :5]).abs().max() == 0
        assert (causal[:, 5:7] - moved[:, 5:7]).abs().min(dim=-1).values.max() > 0
        # the same question without the switch: the check is able to fail
        ahead, looked = (states(model, embedding(part), mask, causal=False) for part in (ids, changed))
        assert (ahead[:, :5] - looked[:, :5]).abs().max() > 1e-3
    assert model[0].model.config.is_causal is False


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_bidirectional_encodes_both_ways_and_decodes_causally(two_heads, template, checkpointing, packed):
    """Also with gradient checkpointing, whose second pass runs when the call is over."""
    model = built(two_heads[False], template, bidirectional=True)
    hand = Hand(two_heads[False], template, bidirectional=True)
    if checkpointing:
        model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    found = ReconstructionLoss(model, ReconstructionSettings(packed=packed))(features_of(model))
    wanted = hand.losses(0.2)
    for key in wanted:
        assert found[key].item() == pytest.approx(wanted[key].item(), abs=1e-5)
    sum(found.values()).backward()
    sum(wanted.values()).backward()
    layer = "layers.0.self_attn.k_proj.weight"
    torch.testing.assert_close(
        gradients(model)[layer], dict(hand.model.named_parameters())["model." + layer].grad, rtol=1e-3, atol=1e-5
    )


def test_attention_that_ignores_the_switch_is_refused(two_heads):
    model = built(two_heads[False], "echo", bidirectional=True)
    forward = model[0].forward
    model[0].forward = lambda features, is_causal=None: forward(features)  # a family that drops the keyword
    with pytest.raises(ModelError, match="stays bidirectional"):
        ReconstructionLoss(model)


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
def test_any_pooling_can_be_the_anchor(two_heads, pooling):
    model = antiphon.build(
        two_heads[True], "echo", pooling=pooling, max_tokens=200, dtype="bfloat16", device="cpu"
    ).train()
    found = ReconstructionLoss(model)(features_of(model))
    sum(found.values()).backward()
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in found.values())
    assert gradients(model)["embed_tokens.weight"].dtype == torch.bfloat16


def test_alternating_steps_sum_to_one(two_heads):
    model = built(two_heads[True], "echo")
    features = features_of(model)
    both = ReconstructionLoss(model)(features)
    loss = ReconstructionLoss(model, ReconstructionSettings(interleave="alternate"))
    first, second, third = (loss(features) for _ in range(3))
    assert first.keys() == second.keys() == both.keys()
    assert (first["ebq2d"].item(), first["ebd2q"].item()) == (pytest.approx(both["ebq2d"].item()), 0.0)
    assert (second["ebq2d"].item(), second["ebd2q"].item()) == (0.0, pytest.approx(both["ebd2q"].item()))
    assert third["ebd2q"].item() == 0.0
    model.eval()
    evaluated = loss(features)
    assert evaluated["ebq2d"].item() > 0
    assert evaluated["ebd2q"].item() > 0
    assert loss.calls == 3  # evaluation does not move the turn


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_frozen_head_gets_no_gradient(two_heads, tied):
    model = built(two_heads[tied], "echo")
    features = features_of(model)
    found = ReconstructionLoss(model, ReconstructionSettings(head="frozen"))(features)
    sum(found.values()).backward()
    frozen = gradients(model)
    assert "head.weight" not in frozen
    unread = torch.ones(len(frozen["embed_tokens.weight"]), dtype=torch.bool)
    for part in features:
        unread[part["input_ids"].unique()] = unread[part["content_ids"].unique()] = False
    # a tied matrix learns from its inputs only: rows of words that nobody said stay
    assert unread.any()
    assert not frozen["embed_tokens.weight"][unread].any()
    model.zero_grad()
    sum(ReconstructionLoss(model, ReconstructionSettings(head="trained"))(features).values()).backward()
    trained = gradients(model)
    assert ("head.weight" in trained) != tied
    assert bool(trained["embed_tokens.weight"][unread].any()) == tied


def test_an_untied_head_hangs_on_the_input_module(two_heads):
    model = built(two_heads[False], "echo")
    modules = len(model)
    loss = ReconstructionLoss(model)
    assert len(model) == modules
    stored = Oracle(two_heads[False]).model.lm_head.weight
    assert torch.equal(model[0].head.weight, stored)
    assert [name for name, _ in loss.named_children()] == ["model"]
    head = model[0].head
    ReconstructionLoss(model)  # a second loss uses the head that is there
    assert model[0].head is head
    own = torch.nn.Linear(32, len(stored), bias=False)
    ReconstructionLoss(model, head=own)
    assert model[0].head is own


def test_an_empty_side_is_no_nan(two_heads):
    model = built(two_heads[True], "echo")
    found = ReconstructionLoss(model)(features_of(model, [("words", ""), ("more words", "")]))
    assert found["ebq2d"].item() == 0.0
    sum(found.values()).backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_clear_errors(two_heads):
    model = built(two_heads[True], "echo")
    for bad in ({"alpha": 1.5}, {"own_side": -1}, {"chunk_size": 0}, {"interleave": "never"}, {"head": "mine"}):
        with pytest.raises(ConfigError):
            ReconstructionSettings(**bad)
    loss, features = ReconstructionLoss(model), features_of(model)
    with pytest.raises(DataError, match="two text columns"):
        loss(features[:1])
    with pytest.raises(DataError, match="content_collator"):
        loss([{key: value for key, value in part.items() if key != "content_ids"} for part in features])
    model.append(Normalize())
    with pytest.raises(ModelError, match="Normalize"):
        ReconstructionLoss(model)
