"""Stage I as its authors' code runs it: what is a target, what is attended to, where the vector stands, what is cut.

The paper's Algorithm 1 decodes the text alone from [e; Embed(text)]. The published code decodes the whole sequence,
with BOS, header and instruction, lets the decode attend to the text's tokens alone, puts the vector before the left
padding with all its gap, and cuts a long document's last token off. Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from antiphon.errors import ConfigError, DataError
from antiphon.model.causality import is_bidirectional
from antiphon.modules import TemplateInput
from antiphon.text.template import Side
from antiphon.text.tokens import Sequenced, check_texts, sequences
from antiphon.training.losses.collating import DEFAULT_MAX_TOKENS, collator_of, content_collator, right_padded
from antiphon.training.losses.decoding import states
from antiphon.training.losses.head import Head, embedding_of
from antiphon.training.losses.vocabulary import linear_cross_entropy

Targets = Literal["content", "sequence"]
Attended = Literal["full", "content"]
Place = Literal["next", "padded"]
Truncation = Literal["keep_eos", "cut_eos"]
DECODE_IDS, DECODE_MASK = "decode_ids", "decode_mask"
DECODE_TARGETS, DECODE_SEEN = "decode_targets", "decode_seen"
DECODE_FEATURES = (DECODE_IDS, DECODE_MASK, DECODE_TARGETS, DECODE_SEEN)


@dataclass(frozen=True)
class PublishedLayout:
    """How a text is decoded; the defaults are Algorithm 1."""

    targets: Targets = "content"
    decode_mask: Attended = "full"
    vector_place: Place = "next"
    truncation: Truncation = "keep_eos"


FORMULA, AS_PUBLISHED = PublishedLayout(), PublishedLayout("sequence", "content", "padded", "cut_eos")


def reconstruction_collator(
    model: SentenceTransformer,
    arguments: SentenceTransformerTrainingArguments | None,
    layout: PublishedLayout = FORMULA,
) -> SentenceTransformerDataCollator:
    """Return the trainer's `data_collator` for reconstruction: each text column also gets what is to be rebuilt.

    Raises ConfigError where the layout is none of the formula's and the model has no slots.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import reconstruction_collator
        >>> batch = reconstruction_collator(antiphon.build("nano"), None)([{"query": "sort a list"}])
        >>> "query_content_ids" in batch
        True
    """
    if layout == FORMULA:
        return content_collator(model, arguments)
    return collator_of(SequencePreprocessor(model, layout), arguments)


class SequencePreprocessor:
    """A `preprocess` that adds the sequence to be decoded and what of it counts.

    `decode_ids` and `decode_mask` (B, T) are the sequence, right-padded; `decode_targets` marks what is predicted, and
    `decode_seen` what a decode may attend to.
    """

    def __init__(self, model: SentenceTransformer, layout: PublishedLayout) -> None:
        if not isinstance(model[0], TemplateInput):
            raise ConfigError(
                "What the published code decodes is told by a template's slots, and this model has a plain prefix or "
                "none; build it with template = 'anchor', or leave the preset 'as_published' and its settings out."
            )
        self.model, self.layout = model, layout

    def __call__(
        self, inputs: Any, prompt: str | None = None, task: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the features of one column."""
        features = self._read(inputs, prompt or "", "document" if task == "document" else "query", options)
        there_BT, marked_BT = features["attention_mask"].bool(), features["pool_mask"].bool()
        closing = self.model.tokenizer.eos_token_id
        rows, targets, seen = [], [], []
        for ids_T, there_T, marked_T in zip(features["input_ids"], there_BT, marked_BT, strict=True):
            ids, marks = ids_T[there_T].tolist(), marked_T[there_T].tolist()
            first = marks.index(True)  # what stands behind the header and the instruction
            whole = self.layout.targets == "sequence"
            kept = slice(0 if whole else first, None)
            rows.append(ids[kept])
            targets.append([int(number != closing) for number in ids[kept]])
            all_seen = self.layout.decode_mask == "full"
            seen.append([int(all_seen or number >= first) for number in range(len(ids))][kept])
        (ids_BT, mask_BT), (targets_BT, _), (seen_BT, _) = map(right_padded, (rows, targets, seen))
        return {
            **features,
            DECODE_IDS: ids_BT,
            DECODE_MASK: mask_BT,
            DECODE_TARGETS: targets_BT,
            DECODE_SEEN: seen_BT,
        }

    def _read(self, inputs: Any, prompt: str, side: Side, options: dict[str, Any]) -> dict[str, Any]:
        """Return the encoder's features; with "cut_eos" a sequence too long loses its end, whatever stands there."""
        if self.layout.truncation == "keep_eos":
            return {**self.model.preprocess(inputs, prompt=prompt, task=side, **options)}
        module = self.model[0]
        most = self.model.max_seq_length or DEFAULT_MAX_TOKENS
        rows = sequences(
            check_texts(inputs),
            module.template_spec,
            module.piece_tokenizer,
            prompt=prompt,
            side=side,
            max_tokens=2 * most,
        )
        cut = [Sequenced(row.ids[:most], [*row.pooled[: min(len(row.ids), most) - 1], True]) for row in rows]
        return {**module.pad(cut), "modality": "text"}


def published_cross_entropy(
    model: torch.nn.Module,
    head: Head,
    anchor_BD: torch.Tensor,
    features: dict[str, Any],
    layout: PublishedLayout,
    *,
    padding: int,
    chunk_size: int,
) -> torch.Tensor:
    """Return the mean -log p over the targets of the batch, decoded as the layout says.

    `padding` is the id whose embedding pads: with "padded" the first token is predicted from the last of them.
    """
    if DECODE_IDS not in features:
        raise DataError(
            f"A column came without {DECODE_IDS}, the sequence to be rebuilt; give the trainer "
            "data_collator=reconstruction_collator(model, arguments, settings)."
        )
    ids_BT, mask_BT = features[DECODE_IDS], features[DECODE_MASK]
    B, T = ids_BT.shape
    gap_B = T - mask_BT.sum(dim=1) if layout.vector_place == "padded" else torch.zeros_like(ids_BT[:, 0])
    # where token k of a row stands: behind the vector and, left-padded, behind the gap
    place_BT = 1 + gap_B[:, None] + torch.arange(T, device=ids_BT.device)
    place_BT = place_BT.masked_fill(~mask_BT.bool(), 0)  # padding is written to the vector's place, which is set last
    input_BT = torch.full((B, T + 1), padding, dtype=ids_BT.dtype, device=ids_BT.device).scatter(1, place_BT, ids_BT)
    seen_BT = torch.zeros_like(input_BT).scatter(1, place_BT, features[DECODE_SEEN] * mask_BT)
    seen_BT[:, 0] = 1
    embedded_BTD = embedding_of(head.module)(input_BT)
    embedded_BTD = torch.cat([anchor_BD[:, None].to(embedded_BTD.dtype), embedded_BTD[:, 1:]], dim=1)
    hidden_BTD = states(model, embedded_BTD, seen_BT, causal=is_bidirectional(head.module.model), counted=False)
    rows_N, tokens_N = (features[DECODE_TARGETS] * mask_BT).nonzero(as_tuple=True)
    return linear_cross_entropy(
        hidden_BTD[rows_N, place_BT[rows_N, tokens_N] - 1] * head.scale,
        head.weight,
        ids_BT[rows_N, tokens_N],
        chunk_size=chunk_size,
        softcap=head.softcap,
    )
