"""The semantics of the Echo paper's parser, restated as facts and compared with ours (Echo, section 4 and appendix F).

A template is a string with braces. What a brace holds is cut to `max_length` tokens on its own; `!` opens a brace that
is not pooled, nor is the plain text between braces. Pieces are tokenised apart and joined; padding is on the right;
mean averages all that is pooled, the end token with it, last takes its last token.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import antiphon
from antiphon.model.parity import compare, unlike_texts
from antiphon.text.tokens import PieceTokenizer

STS = Path(__file__).resolve().parents[3] / "shared" / "data" / "sts" / "stsb_dev.tsv"
BRACES = {
    "echo-rewrite": "<s>Rewrite the following paragraph:{!%%text%%}. The rewritten paragraph:{%%text%%}{</s>}",
    "echo": "<s>Instruct:{!%%prompt%%,}\nQuery:{!%%text%%}\nQuery again:{%%text%%}{</s>}",
}


def parse(template: str, values: dict[str, str], pieces: PieceTokenizer, max_length: int):
    """Ids and pooled marks of one text, as the paper's parser gives them, each slot owning its space."""
    ids, pooled = [1], [False]
    for part in re.findall(r"\{!?[^}]*\}|[^{]+", template.removeprefix("<s>")):
        brace = part.startswith("{")
        marked = brace and not part.startswith("{!")
        words = part.strip("{}").removeprefix("!") if brace else part
        for name, value in values.items():
            words = words.replace(f"%%{name}%%", " " + value)
        if words == "</s>":
            piece = [2]
        elif brace:
            piece = pieces.texts([words], first=False)[0][:max_length]
        else:
            piece = pieces.frame(words, first=len(ids) == 1)
        ids += piece
        pooled += [marked] * len(piece)
    return ids, pooled


@torch.inference_mode()
def paper_vectors(base, template, texts, prompt, pooling, max_length):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    pieces = PieceTokenizer(antiphon.build(base, "echo", max_tokens=64)[0].tokenizer)
    vectors = []
    for text in texts:
        ids, pooled = parse(BRACES[template], {"text": text, "prompt": prompt}, pieces, max_length)
        states = model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        span = states[torch.tensor(pooled)]
        vectors.append((span[-1] if pooling == "last" else span.mean(0)).numpy())
    return np.stack(vectors)


def sentences(count):
    """Real sentences where they are at hand, else those of the parity check."""
    if not STS.exists():
        return None
    with STS.open(encoding="utf-8") as lines:
        found = dict.fromkeys(row["sentence1"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return list(found)[:count]


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize(("template", "prompt"), [("echo-rewrite", ""), ("echo", "Retrieve text of the same meaning")])
@pytest.mark.parametrize("real", [True, False])
def test_vectors_equal_the_papers_semantics(template, prompt, pooling, real, tiny_base):
    texts = sentences(200) if real else unlike_texts()
    if texts is None:
        pytest.skip("the STS benchmark's sentences are not at hand")
    model = antiphon.build(tiny_base, template, pooling=pooling, max_tokens=256, dtype="float32")
    want = paper_vectors(tiny_base, template, texts, prompt, pooling, 10_000)
    parity = compare(model.encode_query(texts, prompt=prompt or None), want)
    assert parity.equal, f"{parity}"


def test_the_length_limit_of_the_paper_is_per_copy(tiny_base):
    """The paper's limit is on what a brace holds; ours counts all else too, so L = limit + overhead."""
    model = antiphon.build(tiny_base, "echo-rewrite", pooling="mean", max_tokens=256, dtype="float32")
    pieces, limit = model[0].piece_tokenizer, 5
    overhead = (
        2
        + len(pieces.frame("Rewrite the following paragraph:", first=True))
        + len(pieces.frame(". The rewritten paragraph:", first=False))
    )
    model.max_seq_length = limit + overhead
    texts = [text for text in unlike_texts() if len(text) > 30]
    texts = [*texts, *[f"{text} again" for text in texts]][:40]
    want = paper_vectors(tiny_base, "echo-rewrite", texts, "", "mean", limit)
    got = model.encode(texts)
    assert np.abs(got - want).max() < 1e-4
    lengths = model[0].preprocess(texts)["attention_mask"].sum(1)
    assert int(lengths.max()) == overhead + 2 * limit
