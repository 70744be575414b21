"""Mining against a whole corpus: as a stream, from stored vectors, with a cross-encoder, and what the report says."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from embedded_texts import TEXTS, embedder
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import antiphon
from antiphon.corpus import neighbours
from antiphon.corpus.mining import mine
from antiphon.corpus.mining_settings import MiningSettings
from antiphon.corpus.rescoring import Rescorer, open_rescorer
from antiphon.corpus.seen import Seen
from antiphon.data.pairs import Pair, reading, to_dataset
from antiphon.errors import ConfigError, DataError, ModelError

LOOSE = MiningSettings(relative_margin=None)


@pytest.fixture(scope="module")
def model(tiny_base):
    return embedder(tiny_base)


@pytest.fixture(scope="module")
def pairs():
    return to_dataset([Pair(TEXTS[n], TEXTS[n + 12]) for n in range(12)])


def corpus_file(folder, texts):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def negatives(mined):
    return [[row[name] for name in mined.column_names if name.startswith("negative_")] for row in mined]


@pytest.mark.parametrize("stored", [False, True])
def test_a_corpus_that_is_streamed_or_stored_gives_what_one_in_memory_gives(
    model, pairs, tmp_path, stored, monkeypatch
):
    texts = [*TEXTS[10:], TEXTS[15].upper(), "one more", TEXTS[12]]
    wanted = mine(model, pairs, settings=LOOSE, corpus=texts)
    source = corpus_file(tmp_path, texts)
    if stored:
        source = antiphon.embed(model, source, tmp_path / "vectors", shard_size=7)
    monkeypatch.setattr("antiphon.corpus.mined_texts.BLOCK", 5)
    assert mine(model, pairs, settings=LOOSE, corpus=source).to_list() == wanted.to_list()


def test_vectors_of_another_model_side_or_instruction_are_refused(model, pairs, tmp_path, tiny_base):
    source = corpus_file(tmp_path, TEXTS)
    documents = antiphon.embed(model, source, tmp_path / "documents")
    queries = antiphon.embed(model, source, tmp_path / "queries", side="query")
    other = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    with pytest.raises(DataError, match="embedded by another model"):
        mine(other, pairs, corpus=documents)
    with pytest.raises(DataError, match="holds vectors of queries"):
        mine(model, pairs, corpus=queries)
    told = antiphon.build(tiny_base, "{prompt}\n[{text}]", max_tokens=64, dtype="float32", device="cpu")
    documents = antiphon.embed(told, source, tmp_path / "told")
    with pytest.raises(ConfigError, match="a document instruction cannot change"):
        mine(told, pairs, corpus=documents, document_instruction="say it")


def test_texts_that_read_the_same_are_known_again_in_any_blocks():
    generator = np.random.default_rng(0)
    seen, known, new = Seen(), set(), []
    for size in generator.integers(1, 60, 80):
        block = [str(n) for n in generator.integers(0, 1500, size)]
        new += [block[n] for n in seen.new(block)]
        known.update(block)
    assert len(new) == len(set(new))
    assert set(new) == known
    assert sum(map(len, seen.known)) == len(known)
    assert len(seen.known) < 12


def test_a_mining_that_died_goes_on_with_the_vectors_that_it_kept(model, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("antiphon.corpus.mined_texts.BLOCK", 4)
    source = corpus_file(tmp_path, TEXTS)
    kept = tmp_path / "cache"
    wanted = mine(model, pairs, settings=LOOSE, corpus=source)
    write, written = neighbours.write_kept, []

    def dying(file, numbers):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(file)
        write(file, numbers)

    monkeypatch.setattr(neighbours, "write_kept", dying)
    with pytest.raises(KeyboardInterrupt):
        mine(model, pairs, settings=LOOSE, corpus=source, cache=kept)
    stamps = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert len(stamps) == 3
    monkeypatch.setattr(neighbours, "write_kept", write)
    assert mine(model, pairs, settings=LOOSE, corpus=source, cache=kept).to_list() == wanted.to_list()
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A random cross-encoder over letters, which gives unlike pairs unlike scores."""
    folder = tmp_path_factory.mktemp("cross-encoder")
    letters = {
        letter: n for n, letter in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"])
    }
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu")


def test_a_cross_encoders_scores_take_the_place_of_cosines(model, pairs, cross_encoder, tmp_path):
    settings = MiningSettings(relative_margin=0.02, negatives=3, range_max=9)
    mined = mine(model, pairs, settings=settings, corpus=TEXTS, rescore=cross_encoder, cache=tmp_path)
    near = mine(model, pairs, settings=MiningSettings(relative_margin=None, negatives=9, range_max=9), corpus=TEXTS)
    for row, found, window in zip(pairs, negatives(mined), negatives(near), strict=True):
        scores = cross_encoder.predict([(row["anchor"], text) for text in (row["positive"], *window)])
        positive, scores = round(float(scores[0]), 6), np.round(scores[1:].astype(float), 6)
        order = np.argsort(-scores, kind="stable")
        wanted = [window[n] for n in order if scores[n] <= settings.highest(positive) + 1e-6]
        assert [text for text in found if text] == wanted[:3]
    assert any(text for found in negatives(mined) for text in found)


def test_scores_of_a_cross_encoder_are_kept_by_its_weights(cross_encoder, tmp_path, monkeypatch):
    asked = [("a b", ["one", "two"]), ("c", ["three"])]
    first = [scores.tolist() for scores in Rescorer(cross_encoder, cache=tmp_path)(asked)]
    monkeypatch.setattr(CrossEncoder, "predict", lambda *args, **kwargs: pytest.fail("scored again"))
    assert [scores.tolist() for scores in Rescorer(cross_encoder, cache=tmp_path)(asked)] == first
    assert [len(scores) for scores in first] == [2, 1]


def test_what_is_no_cross_encoder_is_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="cannot be opened as a cross-encoder"):
        open_rescorer(str(tmp_path / "gone"))


def test_the_report_counts_and_shows(model, pairs, tmp_path):
    page = tmp_path / "new" / "report.md"
    mined = mine(model, pairs, settings=MiningSettings(relative_margin=0.2), corpus=TEXTS, report=page)
    text = page.read_text()
    full = sum(all(found) and len(found) == 4 for found in negatives(mined))
    assert f"12 pairs of 12 queries: {full} have 4 negatives" in text
    assert text.count("- positive (") == min(10, sum(any(found) for found in negatives(mined)))
    assert "| negative / positive |" in text
    page.write_text("mine")
    with pytest.raises(ConfigError, match="is no report of a mining"):
        mine(model, pairs, report=page)
    assert page.read_text() == "mine"


def test_readings_of_nothing_else_are_mined(model, tmp_path, caplog):
    """A query's own text and its positive are in the corpus under other spellings."""
    rows = to_dataset([Pair("Open a file", "Use open().")])
    source = corpus_file(tmp_path, ["OPEN a file!", "use open", "something else"])
    with caplog.at_level(logging.WARNING):
        mined = mine(model, rows, settings=LOOSE, corpus=source)
    assert negatives(mined) == [["something else"]]
    assert reading("OPEN a file!") == reading("Open a file")
