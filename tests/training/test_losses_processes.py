"""Two processes (DistributedDataParallel on gloo) learn what one process learns from both shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import make_base
from warm_process import ranks

import antiphon
from antiphon.training.losses import ReconstructionLoss, content_collator

# each share is averaged on its own process, and the gradients are then averaged
SHARES = [[("red", "a b"), ("blue", "c d")], [("black", "e f"), ("white", "g h")]]


def built(base, *, bidirectional):
    return antiphon.build(
        base, "echo", pooling="last", bidirectional=bidirectional, max_tokens=64, dtype="float32", device="cpu"
    ).train()


def features_of(model, pairs):
    batch = content_collator(model)([{"anchor": query, "positive": document} for query, document in pairs])
    return [
        {key.removeprefix(column): value for key, value in batch.items() if key.startswith(column)}
        for column in ("anchor_", "positive_")
    ]


def learned(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def one_process(rank: int, folder: str, base: str, bidirectional: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = built(base, bidirectional=bidirectional)
    loss = ReconstructionLoss(model)
    loss.model = torch.nn.parallel.DistributedDataParallel(model)  # what the trainer does
    sum(loss(features_of(model, SHARES[rank])).values()).backward()
    torch.save(learned(model), Path(folder) / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads and the interpreter can wait for each other for ever when the group is taken down


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "bidirectional"), [(False, True), (True, False)])
def test_two_processes_learn_what_one_does(tmp_path, programs, tied, bidirectional):
    base = make_base(tmp_path / "base", tie_word_embeddings=tied)
    ranks(programs, one_process, str(tmp_path), str(base), bidirectional)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = {}
    for share in SHARES:
        model = built(base, bidirectional=bidirectional)
        sum(ReconstructionLoss(model)(features_of(model, share)).values()).backward()
        alone = {name: alone.get(name, 0) + gradient / 2 for name, gradient in learned(model).items()}
    assert first.keys() == second.keys() == alone.keys()
    assert any("head" in name for name in first) != tied
    for name, gradient in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
