"""The zero-shot benchmark's own arithmetic, against loops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_backward_attention_is_the_symmetric_sum_of_every_layer_and_head() -> None:
    from zero_shot.passes import backward_weights

    torch.manual_seed(0)
    batch, tokens, width, heads = 2, 5, 3, 2
    mask_BT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    causal = torch.ones(tokens, tokens).tril().bool() & mask_BT.bool()[:, None, None, :]
    layers = [torch.randn(batch, heads, tokens, tokens).masked_fill(~causal, -torch.inf).softmax(-1) for _ in range(3)]
    states_BTD = torch.randn(batch, tokens, width)
    span_BT = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]).float()
    weights_BT = backward_weights(layers, mask_BT, span_BT / span_BT.sum(1, keepdim=True))
    for row in range(batch):
        read = range(int(mask_BT[row].sum()))
        pooled = torch.zeros(width)
        for token in (token for token in read if span_BT[row, token]):
            for other in read:
                for weights in (weights[row, head] for weights in layers for head in range(heads)):
                    attended = weights[token, other] + (weights[other, token] if other != token else 0)
                    pooled += attended * states_BTD[row, other] / (len(layers) * heads)
        torch.testing.assert_close(weights_BT[row] @ states_BTD[row], pooled / span_BT[row].sum())


def test_a_map_is_fitted_on_no_document_that_a_task_keeps(tmp_path: Path) -> None:
    from zero_shot import sets

    rows = [{"_id": f"d{number}", "title": "", "text": f"paragraph {number % 90}"} for number in range(100)]
    data, cache = tmp_path / "data", tmp_path / "cache"
    (data / "text").mkdir(parents=True)
    (data / "text" / "wikitext2.txt").write_text("a line\n", encoding="utf-8")
    (data / "beir" / "xquad_en" / "qrels").mkdir(parents=True)
    (data / "train").mkdir()
    _write(data / "beir" / "xquad_en" / "corpus.jsonl", rows)
    _write(data / "beir" / "xquad_en" / "queries.jsonl", [{"_id": "q0", "text": "a question"}])
    (data / "beir" / "xquad_en" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td3\t1\n")
    _write(data / "train" / "nq.jsonl", [{"query": f"q{n}", "positive": f"passage {n}"} for n in range(60)])
    sets.selected(data, ["beir/xquad_en", "train/nq.jsonl"], cache)
    fitted = sets.fitting_texts(data, cache)
    for name, place in (("xquad", "beir/xquad_en"), ("nq", "train/nq")):
        kept = (cache / "sets" / place / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
        assert fitted[name], "there are texts left"
        assert not {json.loads(line)["text"] for line in kept} & set(fitted[name])


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
