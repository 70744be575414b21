"""Passes of a language model over a text, and what is kept of each: pooled states of several layers.

A pass is one template. A reading is a pooling at a layer: "mean 24" is what `build(..., layers=24)` pools, the final
norm behind its layers; "mean 24 raw" is the stream before the norm, which no stock folder gives. B batch, T tokens,
D width, R readings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from zero_shot.prepending import TokenPrepending

import antiphon
from antiphon.encoding.tokenised import Reading, shared_by_probes
from antiphon.model.flops import forward_flops, shape_of_decoder

MAX_TOKENS = 64
"""Of a sequence with one copy of the text."""
CHARACTERS = 8000
"""Of a batch, about."""


@dataclass(frozen=True)
class Pass:
    """A template, and the pooling that is read at every kept layer; the other two are read at the last one."""

    template: str
    pooling: str
    source: str
    prepends: bool = False
    """Whether the token before the text carries what the sequence's last token says (prepending.py)."""


PASSES: Mapping[str, Pass] = {
    "classical": Pass("classical-write", "mean", "Echo (2402.15449), section 4.2"),
    "echo": Pass("echo-rewrite", "mean", "Echo (2402.15449), section 4.2"),
    "echo-matched": Pass("echo-rewrite-matched", "mean", "Echo (2402.15449), section 4.7: all copies in one's tokens"),
    "echo3": Pass(
        "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}. Once more: [{text}]",
        "mean",
        "Echo with a third copy",
    ),
    "eol": Pass("eol", "last", "PromptEOL (2307.16645)"),
    "echo-eol": Pass('This text: "{text}" Again: "[{text}]" means in one word: "', "last", "Echo before PromptEOL"),
    "eol-prepended": Pass(
        'This text: "*[{text}]" means in one word: "', "last", "Token Prepending (2412.11556)", prepends=True
    ),
    "irrelevant": Pass(
        'The irrelevant information of this text: "[{text}]" means in one word: "',
        "last",
        "Contrastive prompting (2505.12831): what is taken off",
    ),
    "classical-backward": Pass("classical-write", "backward", "Backward attention (2502.20726), one copy"),
    "echo-backward": Pass("echo-rewrite", "backward", "Backward attention (2502.20726), two copies"),
    # four questions of our own, where the paper has eight
    "topic": Pass('The topic of this text: "[{text}]" in one word: "', "last", "MetaEOL (2402.18458)"),
    "feeling": Pass('The feeling in this text: "[{text}]" in one word: "', "last", "MetaEOL (2402.18458)"),
    "kind": Pass('What kind of thing is told or asked in: "[{text}]" in one word: "', "last", "MetaEOL (2402.18458)"),
    "fact": Pass('The main person, thing or place in: "[{text}]" in one word: "', "last", "MetaEOL (2402.18458)"),
}


def layers_kept(layers: int) -> list[int]:
    """Return the layers whose states are kept: every other one from a third of the depth on, and the last
    three, the last first."""
    return sorted({*range(layers, layers // 3, -2), layers - 1}, reverse=True)


def readings(layers: int, pooling: str) -> list[str]:
    """Return what is kept of a pass over a model of so many layers, in the order of the columns."""
    kept = [f"{pooling} {layer}" for layer in layers_kept(layers)]
    early = {round(0.8 * layers), layers - 2} & set(layers_kept(layers))
    others = [one for one in ("mean", "weighted", "last") if one != pooling and pooling != "last"]
    return [*kept, *(f"{pooling} {layer} raw" for layer in sorted(early)), *(f"{one} {layers}" for one in others)]


@dataclass
class Spent:
    """What a pass cost so far, over all runs of the script."""

    layers: int
    width: int
    texts: int = 0
    tokens: int = 0
    flops: float = 0.0
    cpu_seconds: float = 0.0
    readings: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Spent:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


class Reader:
    """Runs one pass over texts; returns (N, R * D), and keeps account of the cost in a file."""

    def __init__(self, source: str, name: str, account: Path) -> None:
        kind = PASSES[name]
        pooling = "last" if kind.pooling == "last" else "mean"
        self.model: SentenceTransformer = antiphon.build(
            source,
            kind.template,
            eos=False if pooling == "last" else None,  # what asks for a word is followed by it
            pooling=pooling,
            max_tokens=MAX_TOKENS,
            dtype="float32",
            device="cpu",
        )
        self.decoder = self.model[0].model
        self.attends = kind.pooling == "backward"
        if self.attends:
            self.decoder.set_attn_implementation("eager")  # the one that gives its weights back
        self.shape = shape_of_decoder(self.decoder)
        layers = len(self.decoder.layers)
        self.readings = readings(layers, kind.pooling)
        self.account = account
        fresh = Spent(layers, self.shape.width, readings=self.readings)
        self.spent = Spent.read(account) if account.exists() else fresh
        self._prepending: TokenPrepending | None = None
        if kind.prepends:
            before = len(shared_by_probes(self.model[0], Reading("", None)))
            self._prepending = TokenPrepending(self.decoder.layers, before - 1)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], prompt: str, side: str) -> np.ndarray:
        out: dict[int, np.ndarray] = {}
        began = time.process_time()
        for batch in batches(texts):
            pooled = self._pooled([texts[n] for n in batch], side)
            out.update(zip(batch, pooled, strict=True))
        self.spent.cpu_seconds += time.process_time() - began
        self.spent.texts += len(texts)
        self.spent.write(self.account)
        return np.stack([out[n] for n in range(len(texts))])

    def _pooled(self, texts: list[str], side: str) -> np.ndarray:
        features = self.model.preprocess(texts, prompt=None, task=side)
        ids, mask = features["input_ids"], features["attention_mask"]
        lengths = mask.sum(1).tolist()
        self.spent.tokens += sum(lengths)
        self.spent.flops += sum(forward_flops(self.shape, length) for length in lengths)
        if self._prepending is not None:
            self._prepending.lengths_B = mask.sum(1)
        out = self.decoder(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, output_attentions=self.attends
        )
        states, weights = out.hidden_states, _weights(mask, features.get("pool_mask"))
        if self.attends:
            weights["backward"] = backward_weights(out.attentions, mask, weights["mean"])
        rows = [self._states(states, reading, weights) for reading in self.readings]
        return torch.cat(rows, dim=1).numpy()

    def _states(self, states: Sequence[torch.Tensor], reading: str, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        pooling, layer, *raw = reading.split()
        if int(layer) == len(self.decoder.layers):
            hidden = states[-1]
        else:
            hidden = states[int(layer)] if raw else self.decoder.norm(states[int(layer)])
        return torch.einsum("bt,btd->bd", weights[pooling], hidden)


def backward_weights(attentions: Sequence[torch.Tensor], mask_BT: torch.Tensor, mean_BT: torch.Tensor) -> torch.Tensor:
    """Return the weights (B, T) with which backward attention's vectors of the tokens of a mean add up.

    A token's new vector is the sum of all tokens' last states by what it attends to, and by what those behind it attend
    to it: the weights A (B, T, T) of all layers and heads together, made symmetric. The mean of such sums is one
    weighted sum over the tokens, so it is a pooling.
    """
    attention_BTT = torch.stack([layer.mean(1) for layer in attentions]).mean(0) * mask_BT[:, :, None]
    both_BTT = attention_BTT + attention_BTT.transpose(1, 2) - torch.diag_embed(attention_BTT.diagonal(dim1=1, dim2=2))
    return torch.einsum("bt,bts->bs", mean_BT, both_BTT)


def _weights(mask_BT: torch.Tensor, span_BT: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return the weights (B, T) of each pooling; texts are padded behind."""
    ends = torch.nn.functional.one_hot(mask_BT.sum(1) - 1, mask_BT.shape[1]).float()
    if span_BT is None:
        return {"last": ends}
    span = span_BT.float()
    ramp = span.cumsum(1) * span
    return {"last": ends, "mean": span / span.sum(1, keepdim=True), "weighted": ramp / ramp.sum(1, keepdim=True)}


def batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield numbers of texts, alike in length, a batch at a time."""
    batch: list[int] = []
    for number in sorted(range(len(texts)), key=lambda n: len(texts[n])):
        if batch and (len(batch) + 1) * (len(texts[number]) + 30) > CHARACTERS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
