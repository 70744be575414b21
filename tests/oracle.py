"""Naive and obviously right: one text at a time, no padding, ids of whole pieces put together by hand."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# (words, slot) in order, as a reader of the paper would write them down; the last text is pooled
HAND_WRITTEN = {
    ("classical", "query"): ["Query:", "TEXT"],
    ("classical", "document"): ["Document:", "TEXT"],
    ("echo", "query"): ["Query:", "TEXT", "\nQuery again:", "TEXT"],
    ("echo", "document"): ["Document:", "TEXT", "\nDocument again:", "TEXT"],
    ("classical-write", "query"): ["Write a paragraph:", "TEXT"],
    ("echo-rewrite", "query"): [
        "Rewrite the following paragraph:",
        "TEXT",
        ". The rewritten paragraph:",
        "TEXT",
    ],
    ("eol", "query"): ['This text: "', "BARE", '" means in one word: "'],
}
INSTRUCTED = {
    ("classical", "query"): ["Instruct:", "PROMPT", ",\nQuery:", "TEXT"],
    ("echo", "query"): ["Instruct:", "PROMPT", ",\nQuery:", "TEXT", "\nQuery again:", "TEXT"],
}


class Oracle:
    """The plain transformers model, asked for one text."""

    def __init__(self, base, *, bidirectional: bool = False) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        if bidirectional:
            self.model.config.is_causal = False

    def ids(self, words: str, *, first: bool) -> list[int]:
        """Ids of a piece; behind the first, a marker is put before it and its ids are taken off again."""
        if first:
            return self.tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        marker = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        joined = self.tokenizer("\n" + words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert joined[: len(marker)] == marker
        return joined[len(marker) :]

    def sequence(self, pieces: list[str], text: str, prompt: str = "") -> tuple[list[int], list[bool]]:
        """Ids with BOS and EOS, and which are pooled: the last copy and the EOS."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        ids, pooled = ([bos], [False]) if bos is not None else ([], [])
        last = max((n for n, piece in enumerate(pieces) if piece in ("TEXT", "BARE")), default=None)
        for number, piece in enumerate(pieces):
            spaced = " " + text.lstrip(" ") if text.strip(" ") else ""
            words = {"TEXT": spaced, "BARE": text, "PROMPT": " " + prompt}.get(piece, piece)
            part = self.ids(words, first=number == 0) if words else []
            ids += part
            pooled += [number == last] * len(part)
        if pieces != HAND_WRITTEN["eol", "query"]:
            return [*ids, eos], [*pooled, True]
        return ids, [*pooled[:-1], True]  # no EOS: pooled is the state that would say the word

    @torch.inference_mode()
    def states(self, ids: tuple[int, ...]) -> torch.Tensor:
        return self.model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]

    def vector(self, ids: list[int], pooled: list[bool], pooling: str) -> np.ndarray:
        states = self.states(tuple(ids))
        span = states[torch.tensor(pooled)]
        if pooling == "last":
            return states[-1].numpy()
        weights = torch.arange(1, len(span) + 1).float() if pooling == "weighted_mean" else torch.ones(len(span))
        return ((weights[:, None] * span).sum(0) / weights.sum()).numpy()


def check_learned(model, found, oracle, wanted):
    """Assert that two losses, each of its own copy of a model, teach its embedding the same."""
    found.backward()
    wanted.backward()
    torch.testing.assert_close(
        model[0].model.get_input_embeddings().weight.grad,
        oracle.model.get_input_embeddings().weight.grad,
        rtol=1e-3,
        atol=1e-5,
    )
