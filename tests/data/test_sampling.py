"""Batches: one data set each, the same on every process, no text twice, and nothing but seed and epoch decides."""

from __future__ import annotations

import os
import pickle
import socket
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.utils.data import ConcatDataset
from warm_process import ranks

import antiphon
from antiphon.data.pairs import Pair, load, to_dataset
from antiphon.data.sampling import KeepEpoch, MixtureBatchSampler, Sampling, share_out, text_hashes
from antiphon.errors import DataError

TRAIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "train"


def table(name: str, rows: int, negatives: int = 0):
    """A set of rows without a text in common."""
    return to_dataset(
        [Pair(f"{name} {n}", f"{name} p{n}", tuple(f"{name} n{n} {k}" for k in range(negatives))) for n in range(rows)]
    )


def sampler_of(datasets, batch_size: int, *, seed: int = 0, **options) -> MixtureBatchSampler:
    stock = [DefaultBatchSampler(range(len(dataset)), batch_size, True) for dataset in datasets]
    return Sampling(**options)(ConcatDataset(datasets), stock, seed=seed)


def global_batches(sampler) -> list[list[int]]:
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert len(batches) % sampler.processes == 0
    assert all(len(batch) == sampler.batch_size for batch in batches)
    world = sampler.processes
    return [[row for part in batches[n : n + world] for row in part] for n in range(0, len(batches), world)]


def check(datasets, batches) -> None:
    """Every global batch is of one data set and has no text in two of its rows."""
    owner = [number for number, dataset in enumerate(datasets) for _ in range(len(dataset))]
    rows = [row for dataset in datasets for row in dataset]
    for batch in batches:
        assert len({owner[row] for row in batch}) == 1
        assert len(set(batch)) == len(batch)
        texts = [{value.strip() for value in rows[row].values() if isinstance(value, str)} - {""} for row in batch]
        assert sum(map(len, texts)) == len(set().union(*texts)), [rows[row] for row in batch]


@pytest.mark.parametrize("world", [1, 3])
def test_without_weights_every_full_batch_is_drawn_once(world):
    datasets = [table("a", 100), table("b", 31, negatives=2), table("c", 5)]
    sampler = sampler_of(datasets, 4, processes=world)
    batches = global_batches(sampler)
    check(datasets, batches)
    drawn = [row for batch in batches for row in batch]
    assert len(set(drawn)) == len(drawn)
    counts = Counter("a" if row < 100 else "b" if row < 131 else "c" for batch in batches for row in batch[:1])
    assert counts == {name: count for name, rows in (("a", 100), ("b", 31), ("c", 5)) if (count := rows // (4 * world))}


def test_weights_share_out_the_epoch_and_a_drained_set_begins_again():
    datasets = [table("big", 90), table("small", 10)]
    sampler = sampler_of(datasets, 2, weights=(1.0, 3.0))
    batches = global_batches(sampler)
    check(datasets, batches)
    small = [batch for batch in batches if batch[0] >= 90]
    assert (len(batches), len(small)) == (50, 37)  # 37.5 of 50: of equal remainders the first set's counts
    seen = Counter(row for batch in small for row in batch)
    assert len(seen) == 10
    assert max(seen.values()) - min(seen.values()) <= 1  # every row before any comes again


def test_shares_are_in_proportion_and_sum_up():
    assert share_out([10, 20, 0]) == (10, 20, 0)
    assert share_out([10, 20, 0], [1, 1, 5]) == (15, 15, 0)
    assert share_out([5, 5, 5], [1, 1, 1.1]) == (5, 5, 5)
    assert share_out([1, 2, 4], [1, 1, 1]) == (3, 2, 2)
    assert share_out([0, 0], [1, 1]) == (0, 0)


def test_seed_and_epoch_alone_decide():
    datasets = [table("a", 40), table("b", 24)]
    first, second = (sampler_of(datasets, 4, seed=5, weights=(1, 1)) for _ in range(2))
    other = sampler_of(datasets, 4, seed=6, weights=(1, 1))
    epochs = []
    for epoch in range(3):
        first.set_epoch(epoch)
        epochs.append(list(first))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert list(other) != epochs[0]
    torch.manual_seed(1)  # what else is drawn has no say
    second.set_epoch(2)
    assert list(islice(second, 3)) == epochs[2][:3]  # neither has what was drawn before, and in part
    assert list(second) == epochs[2]
    second.set_epoch(0)
    assert list(second) == epochs[0]


some_text = st.sampled_from(["", *"abcdefghijklmnop"])
some_rows = st.lists(
    st.tuples(some_text.filter(bool), some_text.filter(bool), some_text, some_text), min_size=1, max_size=40
)


@settings(max_examples=150, deadline=None)
@given(st.lists(some_rows, min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 2), st.integers(0, 3))
def test_no_text_stands_twice_whatever_the_rows(tables, batch_size, world, seed):
    datasets = [to_dataset([Pair(a, p, tuple(filter(None, n))) for a, p, *n in rows]) for rows in tables]
    try:
        sampler = sampler_of(datasets, batch_size, seed=seed, processes=world)
    except DataError:
        size = batch_size * world
        assert size > 1  # one row alone meets no other
        return
    for epoch in range(2):
        sampler.set_epoch(epoch)
        check(datasets, global_batches(sampler))


def test_few_texts_many_rows():
    """Rows that wait for the next batch are taken from it, so that as many batches are full as the texts allow."""
    pairs = [Pair(f"q{n}", f"shared {n % 20}") for n in range(400)]
    sampler = sampler_of([to_dataset(pairs)], 16)
    batches = global_batches(sampler)
    check([to_dataset(pairs)], batches)
    assert len(batches) >= 23  # 25 at the very most
    drawn = Counter(row for batch in batches for row in batch)
    assert max(drawn.values()) == 1


def test_spaces_around_a_text_and_labels_do_not_count():
    dataset = to_dataset([Pair("a", "b", ("c",)), Pair(" a\n", "d"), Pair("e", "f", ("g",))])
    hashes = text_hashes(dataset)
    assert hashes.shape == (3, 3)
    assert hashes[0, 0] == hashes[1, 0] != 0
    assert hashes[1, 2] == 0
    assert (text_hashes(dataset.select([2, 0])) == hashes[[2, 0]]).all()


def test_a_set_without_a_full_batch_is_told_and_none_at_all_is_an_error(caplog):
    sampler = sampler_of([table("a", 10), table("b", 3)], 4, names=("alpha", "beta"), weights=(1, 1))
    assert sampler.draws.shares == (2, 0)
    assert "Set 'beta' has 3 rows, no 4 of them with texts that all differ. None is drawn from it." in caplog.text
    same = to_dataset([Pair(f"q{n}", "the same") for n in range(50)])
    with pytest.raises(DataError, match="No data set fills one batch: Set 'same' has 50 rows, no 2 of them"):
        sampler_of([same], 2, names=("same",))


def test_what_the_trainer_saves_with_its_arguments_is_small():
    sampling = Sampling(names=("a", "b"), weights=(1.0, 2.0))
    assert pickle.loads(pickle.dumps(sampling)) == sampling


@pytest.mark.skipif(not TRAIN.is_dir(), reason="needs the folder shared/data/train beside the checkout")
def test_real_sets_with_questions_that_come_back():
    datasets = [load(TRAIN / f"{name}.jsonl") for name in ("hotpot_qa", "trec_qa", "musique", "quora_duplicates")]
    sampler = sampler_of(datasets, 16, processes=2)
    check(datasets, global_batches(sampler))
    assert all(sampler.draws.shares)
    hotpot = concatenate_datasets([datasets[0]])
    assert len(set(hotpot["anchor"])) < len(hotpot) / 2


SETS = {"one": table("one", 40, negatives=1), "two": table("two", 24, negatives=3), "three": table("three", 16)}
SIDES = {
    name: {column: "query" if column == "anchor" else "document" for column in dataset.column_names}
    for name, dataset in SETS.items()
}


class Recording:
    """A collator that notes what it is given."""

    def __init__(self, collator, recorded: list) -> None:
        self.collator, self.recorded = collator, recorded
        self.valid_label_columns = collator.valid_label_columns

    def __call__(self, features):
        self.recorded.append((features[0]["dataset_name"], [row["anchor"] for row in features]))
        return self.collator(features)


def trainer_of(base, out: Path, recorded: list, **options) -> SentenceTransformerTrainer:
    """A trainer that records the data set and the anchors of each batch."""
    model = antiphon.build(base, "echo", pooling="last", max_tokens=32, dtype="float32", device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=4,
        multi_dataset_batch_sampler=Sampling(names=tuple(SETS), weights=(1, 1, 2)),
        router_mapping=SIDES,
        prompts={name: dict.fromkeys(columns, "") for name, columns in SIDES.items()},
        num_train_epochs=3,
        report_to=[],
        seed=11,
        disable_tqdm=True,
        **options,
    )
    trainer = SentenceTransformerTrainer(
        model,
        arguments,
        train_dataset=DatasetDict(SETS),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[KeepEpoch()],
    )
    trainer.data_collator = Recording(trainer.data_collator, recorded)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_sees_the_batches_that_the_whole_run_sees(tiny_base, tmp_path, accumulation):
    options = {"save_steps": 7, "gradient_accumulation_steps": accumulation, "use_cpu": True}
    whole: list = []
    trainer_of(tiny_base, tmp_path / "run", whole, **options).train()
    assert len(whole) == 3 * 20  # 10 + 6 + 4 batches an epoch
    assert all(name == anchor.split()[0] for name, anchors in whole for anchor in anchors)
    epochs = [whole[n : n + 20] for n in range(0, 60, 20)]
    assert [Counter(name for name, _ in epoch) for epoch in epochs] == [{"one": 5, "two": 5, "three": 10}] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    step = 28 if accumulation == 1 else 14
    resumed: list = []
    trainer_of(tiny_base, tmp_path / "again", resumed, **options).train(
        resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}")
    )
    assert resumed == whole[28:]


def one_process(rank: int, folder: str, base: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    options = {"use_cpu": True, "ddp_backend": "gloo", "save_steps": 13}
    whole: list = []
    resumed: list = []
    trainer_of(base, Path(folder) / "run", whole, **options).train()
    checkpoint = str(Path(folder) / "run" / "checkpoint-13")
    trainer_of(base, Path(folder) / "again", resumed, **options).train(resume_from_checkpoint=checkpoint)
    torch.save((whole, resumed), Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads and the interpreter can wait for each other for ever when the group is taken down


@pytest.mark.slow
def test_two_processes_hold_the_same_data_set_in_every_step_resumed_or_not(tiny_base, tmp_path, programs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks(programs, one_process, str(tmp_path), str(tiny_base), port)
    (first, first_resumed), (second, second_resumed) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 3 * 10
    for (name, anchors), (its_name, its_anchors) in zip(first, second, strict=True):
        assert name == its_name
        assert len({*anchors, *its_anchors}) == 8
    # what one process would see with the whole batch
    sampler = sampler_of(list(SETS.values()), 8, seed=11, weights=(1, 1, 2))
    rows = [row for dataset in SETS.values() for row in dataset["anchor"][:]]
    wanted = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        wanted += [[rows[row] for row in batch] for batch in sampler]
    assert [mine[1] + its[1] for mine, its in zip(first, second, strict=True)] == wanted
    assert (first_resumed, second_resumed) == (first[13:], second[13:])
