"""Stage I: rebuild each side of a pair from the other side's vector (Anchor Embedding, arXiv 2509.03020, section 3.1).

Shapes: B batch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from antiphon.errors import ConfigError, DataError
from antiphon.training.losses.decoding import CONTENT_IDS, CONTENT_MASK, Decode, cross_entropies, prepare, vectors
from antiphon.training.losses.head import HeadTraining, head_of, release_padding
from antiphon.training.losses.kinds import LossCost
from antiphon.training.losses.packer import Packer
from antiphon.training.losses.published_decode import (
    AS_PUBLISHED,
    DECODE_FEATURES,
    FORMULA,
    Attended,
    Place,
    PublishedLayout,
    Targets,
    Truncation,
    published_cross_entropy,
)
from antiphon.training.losses.vocabulary import CHUNK

OF_THE_DECODE = (CONTENT_IDS, CONTENT_MASK, *DECODE_FEATURES)
"""Features of a column that are no business of the encoder's."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """What the paper fixes and what it leaves open; the defaults are the paper's."""

    alpha: float = 0.2
    """Weight of query to document; document to query has 1 - alpha."""
    interleave: Literal["sum", "alternate"] = "sum"
    """Both directions in every step, or query to document in even calls and document to query in odd ones, each with
    its weight: two alternating steps on a batch have the gradient of one summed step. Evaluation always sums."""
    own_side: float = 0.0
    """Weight of rebuilding each side from its own vector too; 0 leaves it out."""
    detach: bool = False
    """Whether the vector is cut off from the pass that made it, so that only the decoder learns."""
    head: HeadTraining = "trained"
    """Whether the vocabulary head learns."""
    chunk_size: int = CHUNK
    """Tokens whose logits exist at once; changes memory and time, never the loss."""
    packed: bool = True
    """Whether texts go through the model without padding between them, both sides in one forward; where the model
    cannot, texts are padded and the log says why. Loss and gradients are the same."""

    preset: Literal["formula", "as_published"] = "formula"
    """What the four settings below are where they are not said: "formula" is the paper's Algorithm 1 ("content",
    "full", "next", "keep_eos"), "as_published" what its authors' code does ("sequence", "content", "padded",
    "cut_eos")."""
    targets: Targets | None = None
    """What is rebuilt: the text ("content"), or the whole sequence but for EOS: BOS, header and instruction too."""
    decode_mask: Attended | None = None
    """What a decode attends to beside the vector: all that it has read ("full"), or the text alone ("content")."""
    vector_place: Place | None = None
    """Whether the vector stands right before the sequence, or before the left padding of the batch ("padded")."""
    truncation: Truncation | None = None
    """What a text that is too long loses: some of its words ("keep_eos"), or the sequence's end ("cut_eos")."""

    @property
    def layout(self) -> PublishedLayout:
        """How texts are decoded: the preset with the settings that are said."""
        names = ("targets", "decode_mask", "vector_place", "truncation")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(AS_PUBLISHED if self.preset == "as_published" else FORMULA, **given)

    def cost(self) -> LossCost:
        """Return what a row costs: each side is decoded from the other's vector, and from its own where it is asked."""
        decoded = (1.0 if self.interleave == "alternate" else 2.0) + (2.0 if self.own_side else 0.0)
        return LossCost(decoded_texts=decoded, projected_texts=decoded)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}; it is a share between 0 and 1.")
        if self.own_side < 0:
            raise ConfigError(f"own_side is {self.own_side}; a weight of at least 0 is wanted.")
        if self.chunk_size < 1:
            raise ConfigError(f"chunk_size is {self.chunk_size}; at least 1 token has to be in a chunk.")
        for name, value, allowed in (
            ("interleave", self.interleave, ("sum", "alternate")),
            ("head", self.head, ("trained", "frozen")),
            ("preset", self.preset, ("formula", "as_published")),
            ("targets", self.targets, (None, *get_args(Targets))),
            ("decode_mask", self.decode_mask, (None, *get_args(Attended))),
            ("vector_place", self.vector_place, (None, *get_args(Place))),
            ("truncation", self.truncation, (None, *get_args(Truncation))),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; take one of {', '.join(filter(None, allowed))}.")


class ReconstructionLoss(nn.Module):
    """alpha * EBQ2D + (1 - alpha) * EBD2Q over the first two columns; further ones (negatives) are not read.

    EBQ2D decodes D from [e_Q; Embed(D)], EBD2Q decodes Q from [e_D; Embed(Q)] (Algorithm 1). The components come back
    weighted, under constant keys `ebq2d`, `ebd2q` and, where it has a weight, `own`; the trainer sums and logs them.
    Each is a mean over the target tokens of the batch on this process. The columns need the text that is to be rebuilt:
    `data_collator=content_collator(model)`.

    Every pass goes through the trainer's wrapped model. Embedding and head are read outside it: under DDP that is
    fine (their gradients are reduced like all others; leave `find_unused_parameters` off), under FSDP, which keeps
    only shards outside a forward, it is not.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import ReconstructionLoss, ReconstructionSettings, content_collator
        >>> model = antiphon.build("nano", pooling="last")
        >>> loss = ReconstructionLoss(model, ReconstructionSettings(alpha=0.2))
        >>> batch = content_collator(model)([{"query": "sort a list", "positive": "Return a sorted list."}])
        >>> names = [name.removeprefix("query_") for name in batch if name.startswith("query_")]
        >>> columns = [{name: batch[f"{side}_{name}"] for name in names} for side in ("query", "positive")]
        >>> sorted(loss(columns, None))
        ['ebd2q', 'ebq2d']
    """

    def __init__(
        self,
        model: SentenceTransformer,
        settings: ReconstructionSettings | None = None,
        *,
        head: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.model = model  # the trainer puts the wrapped model here
        self.settings = settings or ReconstructionSettings()
        self.calls = 0
        """Training calls so far; a resumed run sets it, so that alternation goes on where it stood."""
        release_padding(model)
        self.head = head_of(model, self.settings.head, given=head)
        prepare(model)
        self.packer = Packer.of(model) if self.settings.packed else None
        eos = getattr(model.tokenizer, "eos_token_id", None)
        self.padding = eos if isinstance(eos, int) else 0

    def forward(self, features: list[dict[str, Any]], labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Return the weighted components of one batch."""
        if len(features) < 2:
            raise DataError(f"Reconstruction needs two text columns, query and document; {len(features)} came.")
        query, document = features[:2]
        to_document, to_query = self._directions()
        own, alpha = self.settings.own_side, self.settings.alpha
        of_query, of_document = self._vectors(query, document, (bool(to_document or own), bool(to_query or own)))
        decodes: list[tuple[str, float, Decode]] = []
        if of_query is not None and to_document:
            decodes.append(("ebq2d", alpha, (of_query, document)))
        if of_document is not None and to_query:
            decodes.append(("ebd2q", 1 - alpha, (of_document, query)))
        if of_query is not None and of_document is not None and own:
            decodes += [("own", own, (of_query, query)), ("own", own, (of_document, document))]
        losses = self._losses([decode for _, _, decode in decodes])
        components = dict.fromkeys(
            ("ebq2d", "ebd2q", *(("own",) if own else ())), torch.zeros((), device=self.head.module.model.device)
        )
        for (name, weight, _), loss in zip(decodes, losses, strict=True):
            components[name] = components[name] + weight * loss
        return components

    def _losses(self, decodes: list[Decode]) -> list[torch.Tensor]:
        chunk, layout = self.settings.chunk_size, self.settings.layout
        if layout == FORMULA:
            return cross_entropies(self.model, self.head, decodes, packer=self.packer, chunk_size=chunk)
        return [
            published_cross_entropy(self.model, self.head, *decode, layout, padding=self.padding, chunk_size=chunk)
            for decode in decodes
        ]

    def _directions(self) -> tuple[bool, bool]:
        """Return whether this call decodes the document, the query."""
        if self.settings.interleave == "sum" or not self.model.training:
            return True, True
        self.calls += 1
        return self.calls % 2 == 1, self.calls % 2 == 0

    def _vectors(
        self, query: dict[str, Any], document: dict[str, Any], wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the vectors (B, D) of query and document, None for one that is not wanted."""
        columns = [column for column, read in zip((query, document), wanted, strict=True) if read]
        bare = [{k: v for k, v in column.items() if k not in OF_THE_DECODE} for column in columns]
        if self.packer is not None and self.packer.takes(bare):
            found = self.packer.embed(self.model, bare)
        else:
            found = [vectors(self.model, column) for column in bare]
        found = [vector.detach() if self.settings.detach else vector for vector in found]
        of_query = found[0] if wanted[0] else None
        return of_query, found[-1] if wanted[1] else None
