"""A calibrated model in folders that others read: the map goes with it, and the card says what it was fitted on."""

from __future__ import annotations

import pytest
from conftest import make_base
from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.model.calibration import calibration_of
from antiphon.model.parity import compare, encode, unlike_texts

pytestmark = pytest.mark.usefixtures("warm_checks")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"), num_hidden_layers=3)


@pytest.fixture(scope="module")
def model(base):
    built = antiphon.build(base, "echo-rewrite", pooling="last", max_tokens=128, layers=2, dtype="float32")
    return antiphon.calibrate(built, unlike_texts(), method="all-but-the-top:2+standardize")


def test_a_portable_folder_carries_the_map(model, tmp_path):
    done = antiphon.export(model, to="portable", out=tmp_path / "out")
    (folder,) = set(done.prompts.values())
    texts = unlike_texts()
    assert compare(encode(model, texts, side="query"), SentenceTransformer(str(folder)).encode(texts)).equal
    assert not compare(encode(model, texts, side="query"), encode(_plain(model), texts, side="query")).equal


def test_a_hub_folder_carries_the_map(base, tmp_path):
    spanned = antiphon.calibrate(antiphon.build(base, max_tokens=128, dtype="float32"), unlike_texts())
    antiphon.export(spanned, to="hub", out=tmp_path / "out")
    texts = unlike_texts()
    trusted = SentenceTransformer(str(tmp_path / "out"), trust_remote_code=True)
    assert compare(encode(spanned, texts, side="query"), trusted.encode(texts)).equal
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    record = calibration_of(spanned)
    assert f"`{record.method}`, fitted without labels on {record.rows} texts" in card
    assert record.digest in card


def _plain(model: SentenceTransformer) -> SentenceTransformer:
    return SentenceTransformer(modules=list(model)[:2], prompts=model.prompts)
