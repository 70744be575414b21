"""A text's vector is its own: it does not change with what is beside it, and it is finite, or a sentence says so."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import pytest
from conftest import make_base
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import antiphon
from antiphon.cli import main
from antiphon.errors import ConfigError, ModelError, ParityError
from antiphon.model.parity import compare, encode, unlike_texts
from antiphon.modules import TEXT_ONLY, frequencies_bound, positions_of

pytestmark = pytest.mark.usefixtures("warm_checks")

BOUND = 96
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": BOUND,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 3.0, 9.0, 27.0],
}
ROPES = {
    "longrope": ({"max_position_embeddings": 512, "rope_parameters": LONGROPE}, "llama"),
    "phi3": (
        {"max_position_embeddings": 512, "rope_parameters": LONGROPE, "original_max_position_embeddings": BOUND},
        "phi3",
    ),
    "dynamic": (
        {
            "max_position_embeddings": BOUND,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        },
        "llama",
    ),
}


@pytest.mark.parametrize("shape", [("echo-rewrite", "mean"), ("eol", "last"), ("classical", "last")])
@pytest.mark.parametrize("kind", ROPES)
def test_frequencies_never_depend_on_the_longest_text_of_a_batch(kind, shape, tmp_path):
    options, architecture = deepcopy(ROPES[kind])  # configurations write into what they are given
    base = make_base(tmp_path / "base", architecture, **options)
    with pytest.raises(ConfigError, match=r"pass max_tokens=\d+ or less") as caught:
        antiphon.build(base, shape[0], pooling=shape[1], max_tokens=200)
    assert f"beyond {BOUND} tokens the model's vector of a text depends on the longest text" in str(caught.value)
    fits = int(str(caught.value).split("max_tokens=")[-1].split()[0])
    model = antiphon.build(base, shape[0], pooling=shape[1], max_tokens=fits, dtype="float32")
    texts, long = unlike_texts(), "a very long text " * 400
    alone = np.stack([encode(model, [text])[0] for text in texts])
    assert compare(encode(model, texts), alone).equal
    beside = np.stack([encode(model, [text, long])[0] for text in texts])
    assert compare(beside, alone).equal
    assert compare(antiphon.Encoder(model).encode_query([*texts, long])[:-1], alone).equal
    model.max_seq_length = 400
    with pytest.raises(ConfigError, match=f"{BOUND}"):
        antiphon.Encoder(model).encode_query([*texts, long])


def test_without_the_rule_a_long_text_changes_a_short_one(tmp_path):
    """What the rule is for: a stock model of others is refused by `load`, with the length that would do."""
    options, _ = deepcopy(ROPES["longrope"])
    base = make_base(tmp_path / "base", **options)
    module = Transformer(str(base), modality_config=dict(TEXT_ONLY), module_output_name="token_embeddings")
    module.tokenizer.pad_token = "</s>"
    stock = SentenceTransformer(modules=[module, Pooling(32, pooling_mode="mean")], device="cpu")
    short, long = "A short text.", "a very long text " * 100
    alone, beside = (stock.encode(texts)[0] for texts in ([short], [short, long]))
    assert np.linalg.norm(alone - beside) > 0.01 * np.linalg.norm(alone)
    stock.save(str(tmp_path / "stock"), create_model_card=False)
    with pytest.raises(ModelError, match=rf"Beyond {BOUND} tokens this llama .* to {BOUND} or less"):
        antiphon.load(tmp_path / "stock")
    settings = tmp_path / "stock" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": BOUND}))
    loaded = antiphon.load(tmp_path / "stock")
    alone, beside = (loaded.encode(texts)[0] for texts in ([short], [short, long]))
    assert np.allclose(alone, beside, atol=1e-5)


def test_ordinary_frequencies_are_bound_by_positions_only(tmp_path):
    model = antiphon.build(make_base(tmp_path / "base"), max_tokens=64)
    assert frequencies_bound(model[0].config) is None
    assert positions_of(model[0].config) == 512


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """A base whose states are finite in float32 and bfloat16, and overflow in float16."""
    base = make_base(tmp_path_factory.mktemp("overflow") / "base")
    tensors = load_file(base / "model.safetensors")
    for name in tensors:
        if "mlp.up_proj" in name or "mlp.down_proj" in name:
            tensors[name] = tensors[name] * 3000
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return base


def test_vectors_that_are_not_finite_are_refused_and_say_what_helps(overflowing, tmp_path, capsys):
    model = antiphon.build(overflowing, max_tokens=128, dtype="float16")
    assert not np.isfinite(np.asarray(model.encode(["A text."]))).all()
    words = r"The vector of 'A text\.' is not finite in float16 \(1 of 1 such vectors\); load .*dtype='bfloat16'"
    encoder = antiphon.Encoder(model, widen=False)  # in float32, as some processors compute, nothing overflows
    for refused in (
        lambda: encoder.encode(["A text."]),
        lambda: encoder.encode("A text."),
        lambda: list(encoder.encode_iter(["A text."])),
        lambda: encode(model, ["A text."]),
    ):
        with pytest.raises(ModelError, match=words):
            refused()
    saved = antiphon.save(model, tmp_path / "saved")
    with pytest.raises(SystemExit) as ended:
        main(["show", str(saved), "a text", "--health"])
    assert ended.value.code == 2
    assert "not finite in float16" in " ".join(capsys.readouterr().err.split())
    for dtype in ("float32", "bfloat16"):
        assert np.isfinite(antiphon.Encoder(antiphon.load(saved, dtype=dtype)).encode(["A text."])).all()


@pytest.mark.slow
def test_an_export_is_checked_in_the_dtype_that_it_writes(overflowing, tmp_path):
    model = antiphon.build(overflowing, "eol", pooling="last", max_tokens=128, dtype="float16")
    with pytest.raises(ParityError, match=r"its vectors are not finite in float16, in which its weights are written"):
        antiphon.export(model, to="portable", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fine = antiphon.build(overflowing, "eol", pooling="last", max_tokens=128, dtype="bfloat16")
    assert antiphon.export(fine, to="portable", out=tmp_path / "out").parity.equal
