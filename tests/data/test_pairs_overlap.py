"""What an evaluation shares with the training pairs is found, as comparing every text with every other finds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data.pairs import Pair, load, overlap, texts_of, to_dataset, without
from antiphon.data.pairs.overlap import words
from antiphon.errors import ConfigError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

PAIRS = to_dataset(
    [
        Pair("How do I wrap text into lines?", "Use textwrap.", ("Use ast.",)),
        Pair("open a compressed file", "gzip.open opens a file that was compressed with gzip for reading or writing"),
        Pair("nothing in common", "at all"),
        Pair("東京は日本の首都です", "capital"),
    ]
)


def matched(found) -> list[tuple]:
    return [(match.row, match.column, match.exact) for match in found.matches]


def test_texts_that_read_the_same_are_found_whatever_their_case_and_punctuation():
    found = overlap(PAIRS, ["how do i WRAP text, into lines", "use AST!"])
    assert matched(found) == [(0, "anchor", True), (0, "negative_1", True)]
    assert found.matches[0].other == "how do i WRAP text, into lines"
    assert found.rows == found.exact_rows == {0}
    assert str(found).startswith("1 of 4 pairs (25.00%) share a text with the 2 of the evaluation, 1 word for word")


def test_near_duplicates_are_found_by_the_share_of_their_words():
    evaluation = ["gzip.open opens a file that was compressed with gzip for reading"]  # 11 of the pair's 13 words
    found = overlap(PAIRS, evaluation)
    assert matched(found) == [(1, "positive", False)]
    assert found.matches[0].similarity == pytest.approx(11 / 13)
    assert not overlap(PAIRS, evaluation, near=0.9).matches
    assert not overlap(PAIRS, evaluation, columns=["anchor"]).matches
    assert matched(overlap(PAIRS, ["東京は日本の首都でした。"], near=0.6)) == [(3, "anchor", False)]


def test_matches_are_dropped_on_request_and_only_they():
    found = overlap(PAIRS, ["nothing in common", "Use AST"])
    left = without(PAIRS, found)
    assert left["anchor"][:] == [PAIRS[1]["anchor"], PAIRS[3]["anchor"]]
    assert not overlap(left, ["nothing in common", "Use AST"]).matches
    assert len(without(PAIRS, overlap(PAIRS, []))) == 4


def test_settings_that_cannot_be_used():
    with pytest.raises(ConfigError, match="near is 0"):
        overlap(PAIRS, [], near=0)
    with pytest.raises(ConfigError, match="no column 'query'"):
        overlap(PAIRS, [], columns=["query"])


some_words = st.lists(st.sampled_from(list("abcdefgh")), min_size=1, max_size=9).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(some_words, min_size=1, max_size=8), st.lists(some_words, max_size=8), st.floats(0.05, 1))
def test_the_most_similar_text_is_found_as_by_comparing_all(training, evaluation, near):
    found = overlap(to_dataset([Pair(text, "zzz") for text in training]), evaluation, near=near)
    wanted = {}
    for row, text in enumerate(training):
        for other in evaluation:
            own, its = set(words(text)), set(words(other))
            similarity = len(own & its) / len(own | its)
            if words(text) == words(other):
                similarity = 2.0
            if similarity >= near:
                wanted[row] = max(similarity, wanted.get(row, 0))
    assert {match.row: 2.0 if match.exact else match.similarity for match in found.matches} == pytest.approx(wanted)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder shared/data beside the checkout")
def test_real_pairs_that_stand_in_an_evaluation_are_found():
    pairs = load(DATA / "train" / "quora_duplicates.jsonl")
    planted = [pairs[n]["anchor"].upper() for n in range(0, len(pairs), 50)]
    evaluation = [*planted, *texts_of(DATA / "beir" / "cacm")]
    found = overlap(pairs, evaluation, columns=["anchor"])
    assert {*range(0, len(pairs), 50)} <= found.exact_rows
    assert len(found.rows) < len(pairs) / 10
    assert len(without(pairs, found)) == len(pairs) - len(found.rows)
