"""Mined negatives are those that a full comparison gives, never a positive, and within the margins."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path

import numpy as np
import pytest
from embedded_texts import embedder
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.util import mine_hard_negatives

import antiphon
from antiphon.corpus.mining import MiningSettings, mine
from antiphon.corpus.neighbours import NOTHING, Nearest, VectorSource, blocks
from antiphon.data.pairs import Pair, column_map, load, to_dataset, write
from antiphon.encoding import Encoder
from antiphon.errors import ConfigError, DataError
from antiphon.model.parity import encode, unlike_texts

TEXTS = unlike_texts()
LOOSE = {"relative_margin": None}


@pytest.fixture(scope="module")
def model(tiny_base):
    return embedder(tiny_base)


@pytest.fixture(scope="module")
def pairs():
    """Unlike texts: fifteen queries with a positive each, one with three."""
    rows = [Pair(TEXTS[n], TEXTS[n + 16]) for n in range(15)]
    return to_dataset([*rows, *(Pair(TEXTS[15], TEXTS[n]) for n in (31, 32, 33))])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def negatives_of(row: dict) -> list[str]:
    return [text for name, text in row.items() if name.startswith("negative_") and text]


def naive(model, pairs, corpus, chosen: MiningSettings) -> list[list[str]]:
    """What the settings say, one pair after the other."""
    corpus = list(dict.fromkeys(corpus))
    documents = unit(encode(model, corpus, side="document"))
    found = []
    for row in pairs:
        query = unit(encode(model, [row["anchor"]]))[0]
        positives = [other["positive"] for other in pairs if other["anchor"] == row["anchor"]]
        lowest = min(unit(encode(model, [text], side="document"))[0] @ query for text in positives)
        ranked = sorted(range(len(corpus)), key=lambda n: -(documents[n] @ query))
        ranked = [n for n in ranked if corpus[n] not in (*positives, row["anchor"])]
        window = ranked[chosen.range_min : chosen.range_max]
        left = [n for n in window if documents[n] @ query <= chosen.highest(lowest)]
        if chosen.min_score is not None:
            left = [n for n in left if documents[n] @ query >= chosen.min_score]
        found.append([corpus[n] for n in left[: chosen.negatives]])
    return found


SETTINGS = {
    "nearest": {**LOOSE},
    "fewer": {**LOOSE, "negatives": 1},
    "ranks": {**LOOSE, "range_min": 3, "range_max": 8},
    "relative": {"relative_margin": 0.2, "negatives": 3},
    "absolute": {**LOOSE, "absolute_margin": 0.1},
    "scores": {**LOOSE, "max_score": 0.6, "min_score": 0.3},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("corpus", [None, TEXTS], ids=["own", "corpus"])
def test_what_is_mined_is_what_a_full_comparison_gives(model, pairs, name, corpus):
    chosen = MiningSettings(**SETTINGS[name])
    mined = mine(model, pairs, settings=chosen, corpus=corpus)
    assert mined["anchor"][:] == pairs["anchor"][:]
    assert mined["positive"][:] == pairs["positive"][:]
    wanted = naive(model, pairs, corpus or pairs["positive"][:], chosen)
    assert [negatives_of(row) for row in mined] == wanted
    assert any(wanted)
    if len({len(negatives) for negatives in wanted}) > 1:
        assert [sum(label) for label in mined["label"]] == [len(negatives) for negatives in wanted]


@pytest.mark.parametrize("options", [{}, {"relative_margin": 0.1}, {"absolute_margin": 0.05}, {"max_score": 0.7}])
def test_sentence_transformers_mines_the_same(model, options):
    rows = to_dataset([Pair(TEXTS[n], TEXTS[n + 16]) for n in range(16)])
    mined = mine(model, rows, settings=MiningSettings(**{**LOOSE, "negatives": 3, **options}), corpus=TEXTS[16:])
    # theirs drops the pairs with fewer, and takes a query for a negative of its own
    theirs = mine_hard_negatives(
        rows, model, corpus=TEXTS[16:], num_negatives=3, range_max=len(TEXTS), output_format="n-tuple", verbose=False,
        **options,
    )  # fmt: skip
    full = {row["anchor"]: negatives_of(row) for row in mined if len(negatives_of(row)) == 3}
    assert {row["anchor"]: negatives_of(row) for row in theirs} == full
    assert full


def test_what_reads_like_the_query_or_a_positive_is_no_negative(model):
    pairs = to_dataset([Pair("Open a file", "Use open()."), Pair("open a file!", "See io."), Pair("other", "text")])
    corpus = ["OPEN a file", "use open", "see IO", "Text", "something else"]
    mined = mine(model, pairs, settings=MiningSettings(**LOOSE), corpus=corpus)
    assert [sorted(negatives_of(row)) for row in mined] == [
        ["Text", "something else"],
        ["Text", "something else"],
        ["OPEN a file", "see IO", "something else", "use open"],
    ]


def test_random_negatives_are_drawn_by_seed_from_those_that_are_left(model, pairs):
    def drawn(seed: int) -> list[list[str]]:
        chosen = MiningSettings(**LOOSE, sampling="random", seed=seed, range_max=12)
        return [negatives_of(row) for row in mine(model, pairs, settings=chosen, corpus=TEXTS)]

    window = naive(model, pairs, TEXTS, MiningSettings(**LOOSE, negatives=12, range_max=12))
    assert drawn(1) == drawn(1) != drawn(2)
    for some, allowed in zip(drawn(1), window, strict=True):
        assert len(set(some)) == 4
        assert set(some) <= set(allowed)


def test_instructions_reach_the_model(tiny_base, pairs):
    told = antiphon.build(tiny_base, "Q {prompt}\n[{text}]", max_tokens=64, dtype="float32", device="cpu")
    plain = mine(told, pairs, settings=MiningSettings(**LOOSE))
    instructed = mine(told, pairs, settings=MiningSettings(**LOOSE), instruction="name a colour, any colour at all")
    assert plain["negative_1"][:] != instructed["negative_1"][:]
    own = antiphon.build(
        tiny_base, "Q {prompt}\n[{text}]", max_tokens=64, dtype="float32", device="cpu",
        prompts={"query": "name a colour, any colour at all"},
    )  # fmt: skip
    assert mine(own, pairs, settings=MiningSettings(**LOOSE))["negative_1"][:] == instructed["negative_1"][:]


def test_pairs_without_negatives_are_kept_and_told(model, pairs, caplog):
    with caplog.at_level(logging.WARNING):
        mined = mine(model, pairs, settings=MiningSettings(max_score=-1.0))
    assert mined.column_names == ["anchor", "positive"]
    assert len(mined) == len(pairs)
    assert "18 of 18 pairs have fewer than 4 negatives, 18 of them none" in caplog.text


def test_kept_vectors_are_the_models_own(model, pairs, tmp_path, tiny_base, caplog):
    chosen = MiningSettings(**LOOSE)
    fresh = mine(model, pairs, settings=chosen, cache=tmp_path / "cache")
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 2
    stamps = [file.stat().st_mtime_ns for file in files]
    again = mine(model, pairs, settings=MiningSettings(**LOOSE, negatives=2), cache=tmp_path / "cache")
    assert again["negative_2"][:] == fresh["negative_2"][:]
    assert [file.stat().st_mtime_ns for file in files] == stamps
    # the same weights under another template are another model
    other = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    mined = mine(other, pairs, settings=chosen, cache=tmp_path / "cache")
    assert mined["negative_1"][:] == mine(other, pairs, settings=chosen)["negative_1"][:]
    assert len(list((tmp_path / "cache").iterdir())) == 4
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert mine(model, pairs, settings=chosen, cache=tmp_path / "cache")["negative_1"][:] == fresh["negative_1"][:]
    assert "cannot be read" in caplog.text


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 25), st.integers(1, 8), st.integers(1, 9), st.integers(0, 10**6))
def test_the_nearest_are_found_block_by_block(queries, texts, most, size, seed):
    generator = np.random.default_rng(seed)
    queries_QD, texts_ND = (unit(generator.normal(size=(n, 5))).astype(np.float32) for n in (queries, texts))
    forbidden = np.argwhere(generator.random((queries, texts)) < 0.2)
    nearest = Nearest(queries_QD, most)
    for first in range(0, texts, size):
        here = forbidden[(forbidden[:, 1] >= first) & (forbidden[:, 1] < first + size)]
        nearest.show(texts_ND[first : first + size], first, (here[:, 0], here[:, 1] - first))
    found = nearest.found()
    cosines = queries_QD @ texts_ND.T
    cosines[forbidden[:, 0], forbidden[:, 1]] = -np.inf
    for query in range(queries):
        allowed = [n for n in np.argsort(-cosines[query]) if cosines[query, n] > -np.inf][:most]
        assert [n for n in found.ids[query] if n != NOTHING] == allowed


def test_blocks_cover_all_texts(model):
    seen: list[int] = []
    source = VectorSource(Encoder(model), "document")
    parts = list(blocks(TEXTS, source, size=7, on_block=seen.append))
    assert [first for first, _ in parts] == list(range(0, len(TEXTS), 7))
    assert sum(seen) == len(TEXTS)
    whole = unit(encode(model, TEXTS, side="document"))
    np.testing.assert_allclose(np.concatenate([block for _, block in parts]), whole, atol=1e-5)


def test_settings_and_sources_that_cannot_be_used(model, pairs, tmp_path):
    with pytest.raises(ConfigError, match="negatives is 0"):
        MiningSettings(negatives=0)
    with pytest.raises(ConfigError, match="Ranks from 98 to 100 cannot give 4 negatives"):
        MiningSettings(range_min=98)
    with pytest.raises(ConfigError, match=r"relative_margin is -0\.1"):
        MiningSettings(relative_margin=-0.1)
    with pytest.raises(ConfigError, match="sampling is 'best'"):
        MiningSettings(sampling="best")
    with pytest.raises(DataError, match="The corpus has no text"):
        mine(model, pairs, corpus=[" "])
    with pytest.raises(DataError, match="There is no file"):
        mine(model, pairs, corpus=tmp_path / "gone.jsonl")


def test_mined_pairs_are_written_and_read_back(model, pairs, tmp_path):
    mined = mine(model, pairs, settings=MiningSettings(relative_margin=0.2))
    assert "label" in mined.column_names
    for ending in ("jsonl", "parquet"):
        path = write(mined, tmp_path / "new" / f"mined.{ending}")
        assert load(path).to_list() == mined.to_list()
        with pytest.raises(ConfigError, match="exists already"):
            write(mined, path)
        assert write(pairs, path, force=True) == path
        assert load(path).to_list() == pairs.to_list()
    with pytest.raises(ConfigError, match=r"ends in '\.csv'; pairs are written as \.jsonl or \.parquet"):
        write(mined, tmp_path / "mined.csv")


@pytest.mark.slow
def test_the_command(tmp_path, programs):
    source = write(to_dataset([Pair(TEXTS[n], TEXTS[n + 16]) for n in range(16)]), tmp_path / "pairs.jsonl")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [str(programs / "antiphon"), "mine", "nano", str(source), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = run("--out", "mined.jsonl", "--negatives", "2", "--relative-margin", "0", "--cache", "kept")
    assert (done.returncode, done.stdout) == (0, "mined.jsonl\n"), done.stderr
    assert len(load(tmp_path / "mined.jsonl")) == 16
    assert any((tmp_path / "kept").iterdir())
    before = (tmp_path / "mined.jsonl").read_bytes()
    refused = run("--out", "mined.jsonl")
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert (tmp_path / "mined.jsonl").read_bytes() == before


@pytest.mark.skipif(
    not (Path(__file__).resolve().parents[3] / "shared" / "data").is_dir(),
    reason="needs the folder shared/data beside the checkout",
)
def test_real_pairs_get_negatives_that_their_positives_are_not(model):
    pairs = load(Path(__file__).resolve().parents[3] / "shared" / "data" / "train" / "hotpot_qa.jsonl", limit=60)
    mined = mine(model, pairs, settings=MiningSettings(**LOOSE))
    positives = {}
    for row in pairs:
        positives.setdefault(row["anchor"], set()).add(row["positive"])
    assert all(len(negatives_of(row)) == 4 for row in mined)
    assert not any(positives[row["anchor"]] & set(negatives_of(row)) for row in mined)


def test_a_column_map_names_the_fields(model, tmp_path):
    source = tmp_path / "faq.jsonl"
    source.write_text("".join(json.dumps({"q": TEXTS[n], "a": TEXTS[n + 16]}) + "\n" for n in range(6)))
    with pytest.raises(DataError, match="name it in the column map"):
        mine(model, source)
    mined = mine(model, source, columns={"anchor": "q", "positive": "a"})
    plain = to_dataset([Pair(TEXTS[n], TEXTS[n + 16]) for n in range(6)])
    assert mined.to_list() == mine(model, plain).to_list()
    assert column_map("anchor=q, positive = a") == {"anchor": "q", "positive": "a"}
    for words in ("anchor", "anchor=", "=q"):
        with pytest.raises(ConfigError, match="is no part of a column map"):
            column_map(words)
