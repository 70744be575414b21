"""Probes against models whose answer is known: bags of words, readers of one end, and real causal attention."""

from __future__ import annotations

import re

import evaluation_data as data
import numpy as np
import pytest

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.evaluation import evaluate
from antiphon.evaluation.embedder import CountingEmbedder
from antiphon.evaluation.probes import PROBES, Context, Material, named
from antiphon.evaluation.probes.early_late import early_late, joined, span, texts_of
from antiphon.evaluation.probes.halves import halves
from antiphon.evaluation.probes.material import Triple
from antiphon.evaluation.probes.sweeps import length, prompts
from antiphon.evaluation.probes.vectors import geometry

WORDS = [f"word{number}" for number in range(400)]


@pytest.fixture
def triples(tmp_path):
    """A query and its positive share three of four words, a negative shares none."""
    rows = [
        {
            "query": " ".join(WORDS[8 * n : 8 * n + 4]),
            "positive": " ".join([*WORDS[8 * n : 8 * n + 3], "other"]),
            "negative": " ".join(WORDS[8 * n + 4 : 8 * n + 8]),
        }
        for n in range(20)
    ]
    return str(data.jsonl(tmp_path / "triples.jsonl", rows))


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo-rewrite", max_tokens=64, dtype="float32", device="cpu")


def bag(weigh):
    """An embedder that counts words, each weighed by its place; no text is without a vector."""
    places = {word: number for number, word in enumerate([*WORDS, "other"])}

    def encode(texts, prompt, side):
        vectors = np.full((len(texts), len(places)), 1e-6, dtype=np.float32)
        for row, text in enumerate(texts):
            words = [word for word in re.findall(r"\w+", text.lower()) if word in places]
            for number, word in enumerate(words):
                vectors[row, places[word]] += weigh(number, len(words))
        return vectors

    return CountingEmbedder(encode)


READERS = {
    "all": lambda number, count: 1.0,
    "early": lambda number, count: float(number < count / 2),
    "late": lambda number, count: float(number >= count / 2),
}


def test_halves_of_two_triples_are_joined_as_the_paper_does():
    a, b = (Triple(*(f"{name}{part}" for part in ("", "+", "-"))) for name in "AB")
    assert texts_of(a, b) == {"query": ("A", "B"), "positive": ("A+", "B+"), "S1": ("A-", "B"), "S2": ("A", "B-")}
    assert joined([a, b, a]) == [(a, b)]


@pytest.mark.parametrize(
    ("reader", "expected"), [("all", (1.0, 1.0)), ("early", (1.0, 0.0)), ("late", (0.0, 1.0))], ids=list(READERS)
)
def test_who_reads_one_end_fails_one_structure(model, triples, reader, expected):
    found = early_late(Context(model, bag(READERS[reader]), Material(triples, None, 0)))
    assert (found.metrics["accuracy S1"], found.metrics["accuracy S2"]) == expected
    assert found.main == np.mean(expected) == found.sample.score()


def test_the_early_span_of_a_first_copy_cannot_know_and_that_of_a_second_differs(tiny_base, triples):
    """Under a causal mask the early part reads the same whatever follows, so query and S2 agree to the last digit."""
    from antiphon.evaluation.embedder import ModelEncode
    from antiphon.evaluation.probes.early_late import _early

    distances = {}
    for template in ("classical-write", "echo-rewrite"):
        model = antiphon.build(tiny_base, template, max_tokens=64, dtype="float32", device="cpu")
        context = Context(model, CountingEmbedder(ModelEncode(model)), Material(triples, None, 0))
        every = [texts_of(*pair) for pair in joined(context.material.triples())]
        query, negative = (_early(context, [texts[role] for texts in every]) for role in ("query", "S2"))
        distances[template] = np.abs(query - negative).max()
        assert 0.0 <= span(context).main <= 1.0
    assert distances["classical-write"] < 1e-5 < 1e-3 < distances["echo-rewrite"]
    assert span(Context(antiphon.build(tiny_base, "classical-write", max_tokens=64, dtype="float32", device="cpu"),
                        CountingEmbedder(ModelEncode(model)), Material(triples, None, 0))).main == 0.0  # fmt: skip


def test_a_reader_of_first_halves_over_estimates_pairs_that_begin_alike(model, tmp_path):
    generator = np.random.default_rng(0)
    rows = []
    for number in range(100):
        a, b, c, d = (generator.choice(WORDS, 4, replace=False) for _ in range(4))
        first, second = (a, b), ((a, c), (c, b), (c, d))[number % 3]
        gold = 2.5 if number % 3 < 2 else generator.uniform(0, 5)  # alike in one half: half as alike, whichever
        rows.append((" ".join([*first[0], *first[1]]), " ".join([*second[0], *second[1]]), gold))
    path = str(data.tsv(tmp_path / "pairs.tsv", [("sentence1", "sentence2", "score"), *rows]))
    gaps = {}
    for name, weigh in READERS.items():
        found = halves(Context(model, bag(weigh), Material(path, None, 0)))
        gaps[name] = found.main
        assert found.main == found.metrics["bias of first halves"] - found.metrics["bias of second halves"]
    assert gaps["early"] > 0.3
    assert gaps["late"] < -0.3
    assert abs(gaps["all"]) < 0.15


def test_halves_wants_scored_pairs(model, triples):
    with pytest.raises(ConfigError, match="works on scored pairs"):
        halves(Context(model, bag(READERS["all"]), Material("docstrings", None, 0)))
    with pytest.raises(ConfigError, match="works on scored pairs"):
        halves(Context(model, bag(READERS["all"]), Material(triples, None, 0)))


def test_a_search_gets_better_as_documents_say_more(tiny_base, tmp_path):
    """The query's word stands at word 40 of its document: shorter cuts cannot find it."""
    model = antiphon.build(tiny_base, "classical-write", max_tokens=500, dtype="float32", device="cpu")
    rows = [
        {"query": WORDS[n], "positive": " ".join(["filler"] * 39 + [WORDS[n]] + ["filler"] * 100), "negative": "no"}
        for n in range(30)
    ]
    path = str(data.jsonl(tmp_path / "long.jsonl", rows))
    found = length(Context(model, bag(READERS["all"]), Material(path, None, 0))).metrics
    assert found["nDCG@10 at 32 words"] < 0.3  # chance among 30 is 0.15
    assert found["nDCG@10 at 64 words"] == found["nDCG@10 at 128 words"] == 1.0
    assert found["tokens at 8 words"] < found["tokens at 16 words"] < found["tokens at 32 words"]
    short = str(data.jsonl(tmp_path / "short.jsonl", [{**row, "positive": "short"} for row in rows]))
    with pytest.raises(DataError, match="has 0 texts of at least 128 words"):
        length(Context(model, bag(READERS["all"]), Material(short, None, 0)))


def test_geometry_of_known_vectors(model, tmp_path):
    rows = [{"query": WORDS[n], "positive": WORDS[n], "negative": "other"} for n in range(50)]
    path = str(data.jsonl(tmp_path / "same.jsonl", rows))
    found = geometry(Context(model, bag(READERS["all"]), Material(path, None, 0))).metrics
    assert found["alignment"] == pytest.approx(0.0, abs=1e-6)
    assert found["mean cosine of unlike texts"] == pytest.approx(0.0, abs=1e-3)
    assert found["uniformity"] == pytest.approx(-4.0, abs=0.01)  # exp(-2 * 2): all at right angles
    assert found["isotropy"] == pytest.approx(49 / 401, rel=0.05)  # as many directions as texts, less their mean


def test_prompts_vary_and_leave_the_model_as_it_was(model, tiny_base):
    material = Material("docstrings", 12, 0)
    before = model.encode(data.TEXTS[:3])
    found = prompts(Context(model, bag(READERS["all"]), material))
    assert len(found.details["scores"]) == 12
    assert "echo prompts" in found.notes[0]
    assert found.metrics["lowest nDCG@10"] < found.metrics["highest nDCG@10"]
    assert (model.encode(data.TEXTS[:3]) == before).all()
    baked = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=64, dtype="float32", device="cpu")
    with pytest.raises(ConfigError, match="build it with pooling mean"):
        prompts(Context(baked, bag(READERS["all"]), material))


def test_every_probe_is_a_task_that_counts_in_no_average_and_is_kept(model, tmp_path):
    names = [f"probe:{name}" for name in PROBES if name not in ("halves", "prompts")]
    alike = data.sts(tmp_path / "alike.tsv")
    tasks = [*names, f"probe:halves={alike}", alike]
    scores = evaluate(model, tasks, limit=12, cache=tmp_path / "cache", out=tmp_path / "run")
    assert list(scores) == [*names, "probe:halves=alike", "alike"]
    assert scores.average == scores["alike"].main
    assert all(np.isfinite(list(score.metrics.values())).all() for score in scores.values())
    assert evaluate(model, tasks, limit=12, cache=tmp_path / "cache").to_dict() == scores.to_dict()
    assert scores["probe:reconstruction"].metric == "nats a token"


def test_unknown_probes_and_files_are_refused():
    with pytest.raises(ConfigError, match="There is no probe 'colour'; take one of early-late"):
        named("probe:colour", limit=None, seed=0)
    with pytest.raises(ConfigError, match=r"There is no file nothing\.jsonl"):
        named("probe:geometry=nothing.jsonl", limit=None, seed=0)
