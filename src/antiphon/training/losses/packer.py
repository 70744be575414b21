"""A batch through the model without padding: the same vectors and gradients, from fewer tokens.

The rows of encoding/layout.py go through the whole (possibly wrapped) model with position ids that start anew in each
text and the mask of encoding/masks.py, which keeps texts apart; pooling then reads each text's states. Works on any
decoder that transformers gives a 4-D mask to; `Packer.of` tries it on the model at hand before it is trusted, by the
check of encoding/check.py.
Shapes: B texts, T tokens, N tokens of all texts, R rows, W width of a row, S pooled tokens of a text, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device
from torch import nn

from antiphon import compat
from antiphon.encoding.check import CHECKED, Distance, Judge, Vectors
from antiphon.encoding.kernels import folded
from antiphon.encoding.layout import Group, Layout, Numbers, lay_out, shared_beginning
from antiphon.encoding.masks import Attention
from antiphon.encoding.support import fault, is_supported, unsupported_in_training
from antiphon.errors import ConfigError
from antiphon.model.evaluation_mode import evaluation_mode, own_forward
from antiphon.model.parity import unlike_texts
from antiphon.modules import TemplateInput

Truths = npt.NDArray[np.bool_]

logger = logging.getLogger(__name__)

READ = {"input_ids", "attention_mask", "pool_mask", "modality", "task", "prompt_length"}
FEWEST_SHARED = 4
"""Tokens at the beginning of all texts that are worth being shared."""
NARROW = 192
"""Tokens of the widest row whose attention in 16 bits is multiplied out on a CPU: going back through PyTorch's own call
takes 80 ms where products take 17, at 26 rows of 96 tokens of SmolLM2's heads, and as long as they at 256 (on AMX)."""
SHORT_TEXTS = CHECKED[:-1]
"""Texts to judge by whose rows are narrow under echo too."""
SHARED_PART = 8
"""A shared beginning takes at most one in so many places of a row."""


class Packer:
    """The packed forward of one model; `Packer.of` tells whether it has one."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.module: Transformer = model[0]
        self.pooling: list[nn.Module] = list(model)[1:]
        self.attention = Attention.of(self.module.model.config.get_text_config())
        self.causal = self.attention.causal
        self.products: bool | None = False
        """Whether attention may be multiplied out under autocast; None where that is to be found out."""
        folded.register()
        compat.hand_on(self.module, ("attention_mask", "use_cache"))

    @classmethod
    def of(cls, model: SentenceTransformer) -> Packer | None:
        """Return the packer of a model, or None, with the reason logged, where packed vectors are not its own."""
        reason = unsupported_in_training(model)
        if reason is None:
            packer = cls(model)
            reason = packer._difference(model)
            if reason is None:
                packer.products = None
                return packer
        logger.warning("Texts are padded, not packed, in training: %s.", reason, extra={"once": True})
        return None

    def takes(self, columns: Sequence[dict[str, Any]]) -> bool:
        """Return whether these features are plain text, padded."""
        return all(set(column) <= READ and column["input_ids"].dim() == 2 for column in columns)

    def embed(self, model: nn.Module, columns: Sequence[dict[str, Any]], *, share: bool = True) -> list[torch.Tensor]:
        """Return the vectors (B, D) of each column, all from one forward of `model`, which may be wrapped.

        With `share`, the tokens that all texts of a column begin with stand once in a row; only a causal model can.
        Under dropout the texts of a row then share what it leaves of them.
        """
        masks = [column["attention_mask"].cpu().numpy().astype(bool) for column in columns]
        ids_N = np.concatenate(
            [column["input_ids"].cpu().numpy()[mask] for column, mask in zip(columns, masks, strict=True)]
        )
        lengths = np.concatenate([mask.sum(axis=1) for mask in masks])
        groups = _groups(ids_N, lengths, [len(mask) for mask in masks], share=share and self.causal)
        layout = lay_out(lengths, groups, width_of(lengths, groups))
        device = columns[0]["input_ids"].device
        ids_RW = torch.from_numpy(ids_N[layout.token_RW]).to(device)
        states_PD = self.states(model, {"input_ids": ids_RW}, layout, causal=self.causal)
        vectors, start = [], 0
        for column, mask in zip(columns, masks, strict=True):
            places = layout.place_N[start : start + int(mask.sum())]
            vectors.append(self._pool(states_PD, places, mask, column))
            start += len(places)
        return vectors

    def tokens(self, model: nn.Module, column: dict[str, Any]) -> torch.Tensor:
        """Return the last state (N, D) of every token of a column that is not padding, text behind text."""
        mask = column["attention_mask"].cpu().numpy().astype(bool)
        ids, lengths = column["input_ids"], mask.sum(axis=1)
        layout = lay_out(lengths, [Group(np.arange(len(lengths)))], int(lengths.max()))
        ids_RW = torch.from_numpy(ids.cpu().numpy()[mask][layout.token_RW]).to(ids.device)
        states_PD = self.states(model, {"input_ids": ids_RW}, layout, causal=self.causal)
        return states_PD[torch.from_numpy(layout.place_N).to(ids.device)]

    def states(self, model: nn.Module, given: dict[str, torch.Tensor], layout: Layout, *, causal: bool) -> torch.Tensor:
        """Return the last states (R * W, D) of rows of ids or of embedded tokens."""
        (rows,) = given.values()
        positions_RW = torch.from_numpy(layout.position_RW).to(rows.device)
        features: dict[str, Any] = {**given, "position_ids": positions_RW, "modality": "text"}
        if isinstance(self.module, TemplateInput):
            # SpanPooling refuses to work without one, and nobody reads what it pools of a row
            features["pool_mask"] = torch.ones_like(positions_RW)
        config, dtype = self.module.model.config, self.module.model.dtype
        own = compat.attention_of(config)
        call = folded.NAME if self._by_products(rows) else own
        mask = replace(self.attention, causal=causal).masks(
            torch.from_numpy(layout.segment_RW),
            torch.from_numpy(layout.position_RW),
            added=dtype if call in ("eager", folded.NAME) else None,
            device=rows.device,
        )
        compat.set_attention(config, call)
        try:
            states_RWD: torch.Tensor = model(features, attention_mask=mask, use_cache=False)["token_embeddings"]
        finally:
            compat.set_attention(config, own)
        return states_RWD.flatten(0, 1)

    def _by_products(self, rows: torch.Tensor) -> bool:
        """Return whether attention is multiplied out: under autocast on a CPU, where rows are narrow.

        Not where layers are run again in the backward pass, which would come upon another call.
        """
        config = self.module.model.config
        if rows.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or rows.shape[1] > NARROW:
            return False
        if compat.attention_of(config) != "sdpa" or config.get_text_config() is not config:
            return False
        if any(getattr(one, "gradient_checkpointing", False) for one in self.module.model.modules()):
            return False
        if self.products is None:
            self.products = True  # for the passes of the check itself
            self.products = self._products_are_near()
        return self.products

    @torch.no_grad()
    def _products_are_near(self) -> bool:
        """Return whether products in 16 bits are as near to float32 as the model's own attention in 16 bits is."""
        dtype = torch.get_autocast_dtype("cpu")
        with evaluation_mode(self.model):
            try:
                with own_forward(self.model), torch.autocast("cpu", enabled=False):
                    truth = padded_vectors(self.model, SHORT_TEXTS)
                with torch.autocast("cpu", dtype):
                    theirs = padded_vectors(self.model, SHORT_TEXTS)
                    packed = numbers_of(self.embed(self.model, [column_of(self.model, SHORT_TEXTS)])[0])
            except ConfigError:  # these texts are longer than the model may read
                return False
        return Distance.between(packed, truth).within(Distance.between(theirs, truth).limits(least=0.0))

    def _pool(
        self, states_PD: torch.Tensor, places_N: Numbers, mask_BT: Truths, column: dict[str, Any]
    ) -> torch.Tensor:
        """Return the vectors (B, D) of one column from the states of its tokens."""
        marked_BT = column["pool_mask"].cpu().numpy().astype(bool) if "pool_mask" in column else mask_BT
        if all(getattr(module, "pooling_mode", None) in ("last", "lasttoken", None) for module in self.pooling):
            later_BT = np.cumsum(marked_BT[:, ::-1], axis=1)[:, ::-1]
            marked_BT = marked_BT & (later_BT == 1)
        counts_B = marked_BT.sum(axis=1)
        there_BS = np.arange(int(counts_B.max())) < counts_B[:, None]
        place_BS = np.zeros(there_BS.shape, dtype=np.int64)
        place_BS[there_BS] = places_N[marked_BT[mask_BT]]
        there = torch.from_numpy(there_BS).to(states_PD.device).long()
        features: dict[str, Any] = {
            "token_embeddings": states_PD[torch.from_numpy(place_BS).to(states_PD.device)],
            "attention_mask": there,
            "pool_mask": there,
        }
        for module in self.pooling:
            features = module(features)
        vectors_BD: torch.Tensor = features["sentence_embedding"]
        return vectors_BD

    @torch.no_grad()
    def _difference(self, model: SentenceTransformer) -> str | None:
        """Return in words how packed vectors differ from the model's own, None where they are the same."""
        texts = [f"The beginning that all of these share: {text}" for text in unlike_texts()]
        with evaluation_mode(model):
            first = model.preprocess(texts)
            if not self.takes([first]):
                return f"texts come to it as {', '.join(first)}"

            def packed(texts: Sequence[str]) -> Vectors:
                return numbers_of(self.embed(model, [column_of(model, texts)])[0])

            check = Judge(model, padded_vectors, texts).check(packed)
        if check.reason is None or not is_supported(model) or check.refused:
            return check.reason
        return f"{check.reason}, so steps take about twice as long; {fault(model)}"


def column_of(model: SentenceTransformer, texts: Sequence[str]) -> dict[str, Any]:
    """Return texts as a model reads them, padded, on its device."""
    return dict(batch_to_device(model.preprocess(list(texts)), model.device))


def numbers_of(vectors_BD: torch.Tensor) -> Vectors:
    """Return vectors (B, D) as numpy has them, in float32."""
    return np.asarray(vectors_BD.float().cpu().numpy(), dtype=np.float32)


@torch.no_grad()
def padded_vectors(model: SentenceTransformer, texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts (B, D), padded, by the model's own forward."""
    return numbers_of(model(column_of(model, texts))["sentence_embedding"])


def _groups(ids_N: Numbers, lengths: Numbers, counts: Sequence[int], *, share: bool) -> list[Group]:
    """Return the groups of texts that may stand in one row: those that begin alike, and all others."""
    groups: dict[bytes, Group] = {}
    text, token = 0, 0
    for count in counts:
        texts = np.arange(text, text + count)
        tokens = int(lengths[texts].sum())
        ids = ids_N[token : token + tokens]
        shared = shared_beginning(ids, lengths[texts]) if share and count > 1 else 0
        shared = shared if shared >= FEWEST_SHARED else 0
        key = ids[:shared].tobytes()
        before = groups[key].texts if key in groups else texts[:0]
        groups[key] = Group(np.concatenate([before, texts]), shared)
        text, token = text + count, token + tokens
    return list(groups.values())


def width_of(lengths: Numbers, groups: Sequence[Group]) -> int:
    """Return how wide rows are: as the longest text, and wide enough that a shared beginning is a small part of one."""
    return max(int(lengths.max()), *(SHARED_PART * group.shared for group in groups))
