"""Which texts are negatives and what they cost: the masked matrices against loops over strings."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.training.losses.candidates import DIRECTIONS, Scoring, Texts, info_nce


class Loops:
    """The loss of one row: `documents[k][j]` belongs to query j, and `words` are the texts, of the same shape."""

    def __init__(self, vectors, words, present, row, scoring):
        (self.queries, self.documents), (self.query_words, self.words) = vectors, words
        self.present, self.row, self.scoring = present, row, scoring
        self.own = {self.query_words[row], self.words[0][row]}
        self.query, self.positive = self.queries[row], self.documents[0][row]

    def linked(self, j):
        return bool({self.query_words[j], self.words[0][j]} & self.own)

    def too_close(self, cosine):
        margin = self.scoring.margin
        return margin is not None and bool(cosine.detach() > (self.query @ self.positive).detach() + margin)

    def raised(self, k, j, cosine):
        hard = k > 0 and j == self.row
        chosen = {"hard_negatives": hard, "in_batch_negatives": j != self.row, "all_negatives": True}
        if not self.scoring.hardness or not chosen[self.scoring.hardness]:
            return 0.0
        return self.scoring.hardness_strength * cosine.detach()

    def of_documents(self, source, from_query):
        for k, column in enumerate(self.documents):
            for j, vector in enumerate(column):
                cosine = source @ vector
                if from_query and k == 0 and j == self.row:
                    yield self.scoring.scale * cosine
                    continue
                own = not from_query and j == self.row
                same = self.linked(j) if k == 0 else self.words[k][j] in self.own
                if own or same or not self.present[k][j] or self.too_close(cosine):
                    continue
                yield self.scoring.scale * cosine + (self.raised(k, j, cosine) if from_query else 0.0)

    def of_queries(self, source, from_query):
        for j, vector in enumerate(self.queries):
            cosine = source @ vector
            out = from_query if j == self.row else self.linked(j) or self.too_close(cosine)
            if not out:
                yield self.scoring.scale * cosine

    def loss(self):
        sums = []
        for direction in self.scoring.directions:
            from_query = direction.startswith("query")
            candidates = self.of_documents if direction.endswith("doc") else self.of_queries
            sums.append(list(candidates(self.query if from_query else self.positive, from_query)))
        score = self.scoring.scale * (self.query @ self.positive)
        if self.scoring.partition == "joint":
            return torch.stack(list(itertools.chain(*sums))).logsumexp(0) - score
        return torch.stack([torch.stack(terms).logsumexp(0) for terms in sums]).mean() - score


@st.composite
def batches(draw):
    pairs, columns = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    word = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"])
    queries = draw(st.lists(word, min_size=pairs, max_size=pairs))
    documents = [draw(st.lists(word, min_size=pairs, max_size=pairs)) for _ in range(columns)]
    present = [[True] * pairs] + [
        draw(st.lists(st.booleans(), min_size=pairs, max_size=pairs)) for _ in range(columns - 1)
    ]
    partition = draw(st.sampled_from(["joint", "per_direction"]))
    others = DIRECTIONS[1:] if partition == "joint" else ("doc_to_query",)
    hardness = draw(st.sampled_from([None, "in_batch_negatives", "hard_negatives", "all_negatives"]))
    scoring = Scoring(
        scale=draw(st.sampled_from([1.0, 20.0])),
        directions=("query_to_doc", *draw(st.lists(st.sampled_from(others), unique=True))),
        partition=partition,
        hardness=hardness,
        hardness_strength=2.0 if hardness else 0.0,
        margin=draw(st.sampled_from([None, -0.3, 0.0, 0.4])),
    )
    return queries, documents, present, draw(st.booleans()), scoring, draw(st.integers(0, 99))


def unit(generator, *shape):
    return F.normalize(torch.randn(*shape, 6, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()


@settings(deadline=None, max_examples=200)
@given(batches())
def test_equals_loops_over_strings(batch):
    query_strings, document_strings, present, masks, scoring, seed = batch
    generator = torch.Generator().manual_seed(seed)
    queries, documents = unit(generator, len(query_strings)), unit(generator, len(document_strings), len(query_strings))
    texts = Texts(
        present=torch.tensor(present).flatten(),
        query_keys=torch.tensor([ord(word) for word in query_strings]) if masks else None,
        document_keys=torch.tensor([[ord(word) for word in column] for column in document_strings]).flatten()
        if masks
        else None,
    )
    if not masks:  # every string another one
        query_strings = [f"q{n}" for n in range(len(query_strings))]
        document_strings = [[f"d{k}{n}" for n in range(len(query_strings))] for k in range(len(document_strings))]
    found = info_nce(queries, documents.flatten(0, 1), torch.arange(len(queries)), texts, scoring)
    wanted = sum(
        Loops((queries, documents), (query_strings, document_strings), present, row, scoring).loss()
        for row in range(len(queries))
    )
    assert found.item() == pytest.approx(wanted.item(), abs=1e-9)
    for own, other in zip(
        torch.autograd.grad(found, (queries, documents)), torch.autograd.grad(wanted, (queries, documents)), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_rows_add_up_to_the_batch():
    generator = torch.Generator().manual_seed(0)
    queries, documents = unit(generator, 7), unit(generator, 14)
    scoring = Scoring(scale=20.0, directions=DIRECTIONS)
    whole = info_nce(queries, documents, torch.arange(7), Texts(), scoring)
    shares = [info_nce(queries, documents, rows, Texts(), scoring) for rows in torch.arange(7).split(3)]
    assert sum(shares).item() == pytest.approx(whole.item(), abs=1e-9)


def test_a_missing_negative_has_no_influence_and_a_pair_alone_costs_nothing():
    generator = torch.Generator().manual_seed(0)
    queries, documents = unit(generator, 1), unit(generator, 2)
    rows, scoring = torch.arange(1), Scoring(scale=1.0)
    present = Texts(present=torch.tensor([True, False]))
    found = info_nce(queries, documents, rows, present, scoring)
    assert found.item() == pytest.approx(0.0, abs=1e-12)
    assert not torch.autograd.grad(found, documents)[0][1].any()
    assert info_nce(queries, documents, rows, Texts(), scoring).item() != pytest.approx(0.0, abs=1e-3)
