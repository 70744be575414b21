"""The plan of an embedding: counts, the formula against plain arithmetic, and what it is refused for."""

from __future__ import annotations

import json

import pytest
from embedded_texts import TEXTS

import antiphon
from antiphon.cli import main
from antiphon.corpus.embedding_plan import Sizing, sized
from antiphon.corpus.sizing import PUBLISHED_PASSAGES, plan_embedding
from antiphon.errors import ConfigError
from antiphon.model.flops import forward_flops, shape_of_decoder, tokens_read


@pytest.fixture(scope="module")
def model(tiny_base):
    return antiphon.build(tiny_base, "echo", max_tokens=64, dtype="float32", device="cpu")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": f"t{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    return path


def test_passages_tokens_operations_and_bytes_are_those_of_the_source(model, source):
    plan = plan_embedding(model, source, precision="int8", truncate_dim=16)
    shape = shape_of_decoder(model[0].model)
    counts = tokens_read(model, TEXTS, "", "document")
    assert plan.passages == len(TEXTS)
    assert plan.tokens == pytest.approx(sum(counts) / len(TEXTS))
    assert plan.flops == pytest.approx(sum(forward_flops(shape, count) for count in counts) / len(TEXTS))
    assert plan.vector_bytes == len(TEXTS) * 16
    assert plan.text_bytes * len(TEXTS) == pytest.approx(sum(len(f"t{n}{t}".encode()) for n, t in enumerate(TEXTS)))
    assert plan.workers[0].name == "cpu, measured here"
    assert plan.workers[0].flops_per_second > 0
    assert "passages/s" in plan._repr_html_()


def test_hours_workers_and_dollars_are_plain_arithmetic():
    sizing = Sizing(passages=3_600_000, tokens=100, tokens_per_second=1000, price=2.0, within=25)
    plan = plan_embedding("Qwen/Qwen3-0.6B", precision="binary", sizing=sizing)
    given, *published = plan.workers
    assert plan.hours(given) == pytest.approx(100)  # 3.6 million passages, ten a second
    assert (plan.wanted(given), plan.dollars(given)) == (4, pytest.approx(200))
    assert plan.vector_bytes == 3_600_000 * 1024 / 8
    assert [one.name.partition(",")[0] for one in published] == list(PUBLISHED_PASSAGES)


def test_published_speeds_and_dollars_come_back_for_what_they_were_published_for():
    plan = plan_embedding("Qwen/Qwen3-0.6B", sizing=Sizing(passages=1_000_000, tokens=512))
    for worker, speed in zip(plan.workers, PUBLISHED_PASSAGES.values(), strict=True):
        assert plan.hours(worker) == pytest.approx(1_000_000 / speed / 3600)
        assert plan.dollars(worker) == pytest.approx(2.8)


def test_a_given_number_of_passages_is_not_counted(model, source):
    endless = ({"id": f"{n}", "text": TEXTS[n % len(TEXTS)]} for n in range(10**9))
    plan = plan_embedding(model, endless, sizing=Sizing(passages=10**9, tokens_per_second=1))
    assert plan.passages == 10**9
    assert plan.tokens == pytest.approx(sum(tokens_read(model, TEXTS, "", "document")) / len(TEXTS), rel=0.1)


def test_what_is_missing_or_no_number_is_a_sentence(model, source):
    for arguments, sizing, words in (
        ((model,), Sizing(passages=5), "Without a source both are needed"),
        (("Qwen/Qwen3-0.6B",), Sizing(tokens=5), "Without a source both are needed"),
        (("Qwen/Qwen3-0.6B", source), Sizing(tokens_per_second=5), "Only the name Qwen/Qwen3-0.6B is given"),
        ((model, source), Sizing(within=0), "within is 0; a number above 0"),
        ((model, source), Sizing(price=float("nan")), "price is nan"),
    ):
        with pytest.raises(ConfigError, match=words):
            plan_embedding(*arguments, sizing=sizing)


def test_bytes_in_words():
    assert [sized(number) for number in (8, 1500, 999_600_000, 41e12, 3e17)] == [
        "8 B", "1.5 kB", "1 GB", "41 TB", "300 PB",
    ]  # fmt: skip


def test_the_command_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return ended.value.code or 0, capsys.readouterr()

    status, told = run(
        "embed", "Qwen/Qwen3-0.6B", "--plan", "--passages", "1000000", "--tokens", "512", "--precision", "int8"
    )
    assert status == 0
    assert "1,000,000 passages of 512 tokens by Qwen/Qwen3-0.6B" in told.out
    assert "1,024 dimensions as int8) 1 GB" in told.out
    assert list(tmp_path.iterdir()) == []
    for arguments, words in (
        (("embed", "nano", "docstrings"), "Name a SOURCE and, by --out"),
        (("embed", "nano", "docstrings", "--out", "x", "--price", "3"), "--price is for --plan"),
    ):
        status, told = run(*arguments)
        assert status == 2
        assert words in told.err
