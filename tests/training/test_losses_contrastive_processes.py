"""Two processes (DistributedDataParallel on gloo) learn what one does from the same global batch."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from test_losses_contrastive import COLUMNS, built, learned
from warm_process import ranks

from antiphon.training.losses import ContrastiveLoss, ContrastiveSettings, contrastive_collator

# two data sets: one negative each, and up to two; texts repeat across the processes
ONE_NEGATIVE = [
    ("red", "a hot and long word", "blue"),
    ("sky", "over us", ""),
    ("grass", "over us", "underground, where nobody goes"),
    ("coal", "black", "white"),
]
TWO_NEGATIVES = [
    ("q one", "d one", "", ""),
    ("q two", "d two, longer", "n", ""),
    ("a", "b", "c", "d"),
    ("e", "f", "", "g"),
]
CASES = list(
    itertools.product(
        (ONE_NEGATIVE, TWO_NEGATIVES),
        ({}, {"mini_batch_size": 1}, {"mini_batch_tokens": 20, "packed": False}),
        ({}, {"directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")}),
    )
)


def batch_of(model, pairs):
    rows = [
        {**dict(zip(COLUMNS, pair, strict=False)), "label": [int(text != "") for text in pair[2:]]} for pair in pairs
    ]
    batch = contrastive_collator(model)(rows)
    columns = COLUMNS[: len(pairs[0])]
    return [
        {key.removeprefix(f"{column}_"): value for key, value in batch.items() if key.startswith(f"{column}_")}
        for column in columns
    ], batch["label"]


def outcome(model, case, pairs, wrapped=None):
    _, cache, options = case
    loss = ContrastiveLoss(model, ContrastiveSettings(temperature=0.2, **cache, **options))
    loss.model = wrapped or model  # what the trainer does
    value = loss(*batch_of(model, pairs))
    gradients = learned(model, value)
    return value.item(), gradients


def one_process(rank: int, folder: str, base: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = built(base)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    found = [outcome(model, case, case[0][2 * rank : 2 * rank + 2], wrapped) for case in CASES]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads and the interpreter can wait for each other for ever when the group is taken down


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path, tiny_base, programs):
    ranks(programs, one_process, str(tmp_path), str(tiny_base))
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    model = built(tiny_base)
    for case, *found in zip(CASES, *shares, strict=True):
        loss, alone = outcome(model, case, case[0])
        assert sum(value for value, _ in found) / 2 == pytest.approx(loss, abs=1e-5), case[1:]
        for name, gradient in alone.items():
            assert torch.equal(found[0][1][name], found[1][1][name]), name
            most = float(gradient.abs().max())
            torch.testing.assert_close(
                found[0][1][name], gradient, rtol=1e-4, atol=1e-5 * most, msg=f"{case[1:]} {name}"
            )


def test_the_shares_alone_are_another_loss(tiny_base):
    """What the test above could not see: without gathering each process has negatives of its own only."""
    whole, _ = outcome(built(tiny_base), CASES[0], ONE_NEGATIVE)
    halves = [outcome(built(tiny_base), CASES[0], ONE_NEGATIVE[start : start + 2])[0] for start in (0, 2)]
    assert sum(halves) / 2 < whole - 0.05
