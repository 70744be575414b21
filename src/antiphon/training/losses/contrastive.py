"""Stage II and the baseline: InfoNCE with in-batch and hard negatives, on sentence-transformers' gradient cache.

Shapes: B pairs of this process, N pairs of the global batch, C document columns, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import RandContext
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank
from torch import distributed

from antiphon import compat
from antiphon.errors import ConfigError, DataError
from antiphon.training.losses.candidates import (
    DIRECTIONS,
    HARDNESSES,
    PARTITIONS,
    WITH_POSITIVE,
    Direction,
    Hardness,
    Partition,
    Scoring,
    Texts,
    info_nce,
)
from antiphon.training.losses.head import release_padding
from antiphon.training.losses.kinds import LossCost
from antiphon.training.losses.packer import Packer
from antiphon.training.losses.text_keys import TEXT_KEY

SCORES = 2**24
"""Scores of a direction that exist at once: 64 MB in fp32."""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What is said to a loss whose candidates are the texts of the batch."""

    temperature: float = 0.02
    """What cosines are divided by (tau)."""
    mini_batch_size: int | None = None
    """Texts that are embedded at once by the gradient cache (GradCache, arXiv 2101.06983), which embeds each text twice
    and keeps activations of one mini-batch only. Without it and `mini_batch_tokens` there is no cache."""
    mini_batch_tokens: int | None = None
    """The same, counted in tokens that are not padding; goes before `mini_batch_size`."""
    mask_identical_texts: bool = True
    """Whether texts identical to the pair's own, and the other halves of pairs with such a text, are left out. Needs
    `data_collator=contrastive_collator(model)`."""
    gather_across_devices: bool = True
    """Whether candidates come from all processes; every process must have equally many rows."""
    packed: bool = True
    """Whether texts go through the model without padding between them, and what all texts of a column begin with once
    for many; where the model cannot, texts are padded and the log says why. Vectors and gradients are the same."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings(BatchSettings):
    """How the loss is computed; similarity is always the cosine."""

    directions: tuple[Direction, ...] = ("query_to_doc",)
    """Which texts compete with the positive: all documents for the query; more for GTE's loss (arXiv 2308.03281)."""
    partition_mode: Partition = "joint"
    """One softmax over the candidates of all directions, or the mean of one for each."""
    hardness_mode: Hardness | None = None
    """Negatives whose scores are raised by `hardness_strength` times their cosine."""
    hardness_strength: float = 0.0
    """By how much; above 0 with a mode, and only then."""
    false_negative_margin: float | None = None
    """A candidate whose cosine exceeds the positive's by more than this is left out as a false negative."""
    matryoshka: tuple[int, ...] = ()
    """Widths that the loss is computed at, the full one among them if it is wanted; only the full one without any."""
    matryoshka_weights: tuple[float, ...] = ()
    """A weight for each width; 1 for all without it."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; a number above 0 is wanted.")
        for name in ("mini_batch_size", "mini_batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; at least 1 is wanted.")
        self._check_directions()
        if self.hardness_mode is not None and self.hardness_mode not in HARDNESSES:
            raise ConfigError(f"hardness_mode is {self.hardness_mode!r}; take one of {', '.join(HARDNESSES)}.")
        if self.hardness_strength < 0 or (self.hardness_strength > 0) != (self.hardness_mode is not None):
            raise ConfigError(
                f"hardness_mode {self.hardness_mode!r} and hardness_strength {self.hardness_strength} do not go "
                "together; a mode needs a strength above 0, and a strength a mode."
            )
        if any(width < 1 for width in self.matryoshka) or len(set(self.matryoshka)) < len(self.matryoshka):
            raise ConfigError(f"matryoshka is {list(self.matryoshka)}; different widths of at least 1 are wanted.")
        if self.matryoshka_weights and len(self.matryoshka_weights) != len(self.matryoshka):
            raise ConfigError(
                f"{len(self.matryoshka_weights)} matryoshka_weights came for {len(self.matryoshka)} widths."
            )

    def cost(self) -> LossCost:
        """Return what a row costs: with a gradient cache every text goes forward twice, and few are kept at once."""
        tokens = self.mini_batch_tokens
        texts = self.mini_batch_size if tokens is None else None
        return LossCost(cached=bool(tokens or texts), texts_at_once=texts, tokens_at_once=tokens)

    def _check_directions(self) -> None:
        if "query_to_doc" not in self.directions or set(self.directions) - set(DIRECTIONS):
            raise ConfigError(
                f"directions are {', '.join(self.directions) or 'none'}; take query_to_doc, which holds the positive, "
                f"and what else you want of {', '.join(DIRECTIONS)}."
            )
        if self.partition_mode not in PARTITIONS:
            raise ConfigError(f"partition_mode is {self.partition_mode!r}; take one of {', '.join(PARTITIONS)}.")
        if self.partition_mode == "per_direction" and set(self.directions) - set(WITH_POSITIVE):
            raise ConfigError(
                "partition_mode 'per_direction' needs directions that hold the positive, "
                f"{' and '.join(WITH_POSITIVE)}; use 'joint' with the others."
            )

    @property
    def scoring(self) -> Scoring:
        """Return how similarities become a loss."""
        return Scoring(
            scale=1 / self.temperature,
            directions=self.directions,
            partition=self.partition_mode,
            hardness=self.hardness_mode,
            hardness_strength=self.hardness_strength,
            margin=self.false_negative_margin,
        )


class ContrastiveLoss(CachedMultipleNegativesRankingLoss):
    """InfoNCE over columns query, document and hard negatives, a mean over the pairs of the global batch.

    `labels`, where they come, are 0 or 1 of shape (B, hard negatives): 0 says that a pair has no such negative, and
    whatever text stands in its place is no candidate of anybody. With the same batch the loss and its gradients are
    those of sentence-transformers' class; scores are in fp32 under autocast too.

    Raises ConfigError for a width that the model does not have.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import ContrastiveLoss, ContrastiveSettings
        >>> model = antiphon.build("nano")
        >>> loss = ContrastiveLoss(model, ContrastiveSettings(temperature=0.05, mask_identical_texts=False))
        >>> columns = [model.preprocess([text]) for text in ("sort a list", "Return a sorted list.")]
        >>> abs(float(loss(columns, None).detach()))  # a pair alone has nothing to be told from
        0.0
    """

    share_beginnings = True
    """Whether texts in a packed row share the beginning that they have in common."""

    def __init__(self, model: SentenceTransformer, settings: ContrastiveSettings | None = None) -> None:
        settings = settings or ContrastiveSettings()
        super().__init__(
            model,
            scale=1 / settings.temperature,
            mini_batch_size=settings.mini_batch_size or 1,
            mini_batch_num_tokens=settings.mini_batch_tokens,
            gather_across_devices=settings.gather_across_devices,
            directions=settings.directions,
            partition_mode=settings.partition_mode,
            hardness_mode=settings.hardness_mode,
            hardness_strength=settings.hardness_strength,
        )
        self.settings = settings
        width = model.get_embedding_dimension()
        if width is not None and any(part > width for part in settings.matryoshka):
            raise ConfigError(f"matryoshka has {max(settings.matryoshka)} and a vector of this model {width} numbers.")
        widths: tuple[int | None, ...] = settings.matryoshka or (None,)
        self.widths = dict(zip(widths, settings.matryoshka_weights or (1.0,) * len(widths), strict=True))
        self.uses_gradient_cache = settings.mini_batch_size is not None or settings.mini_batch_tokens is not None
        release_padding(model)
        self.packer = Packer.of(model) if settings.packed else None
        self._precision: AbstractContextManager[None] = nullcontext()

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of one batch.

        Raises DataError for fewer than two columns, labels of another shape, or texts that came without keys.
        """
        columns = list(sentence_features)
        if len(columns) < 2:
            raise DataError(f"The contrastive loss needs two text columns, query and document; {len(columns)} came.")
        texts = self._texts(columns, labels)
        features = [{key: value for key, value in column.items() if key != TEXT_KEY} for column in columns]
        if self.uses_gradient_cache:
            device = features[0]["input_ids"].device.type  # of tensors: a wrapped model may not tell
            narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
            self._precision = nullcontext() if narrow is None else torch.autocast(device, narrow)
            loss: torch.Tensor = self.forward_cached(features, texts)
            return loss
        return self.calculate_loss([[vectors] for vectors in self._embed(features)], texts)

    def _embed(self, columns: list[dict[str, Any]]) -> list[torch.Tensor]:
        """Return the vectors (B, D) of each column."""
        if self.packer is not None and self.packer.takes(columns):
            return self.packer.embed(self.model, columns, share=self.share_beginnings)
        vectors: list[torch.Tensor] = embed_columns(self.model, columns)
        return vectors

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Any],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[torch.Tensor, RandContext | None]:
        """Return the vectors of rows `begin` to `end` of a column, and the state of the generators before them."""
        column = compat.rows_of_column(sentence_feature, begin, end)
        # the second pass is made by the backward, where what the first one computed in is no longer said
        with (
            random_state or nullcontext(),
            self._precision,
            torch.set_grad_enabled(with_grad and torch.is_grad_enabled()),
        ):
            before = RandContext(*column.values()) if copy_random_state else None
            return self._embed([column])[0], before

    def calculate_loss(
        self, reps: list[list[torch.Tensor]], labels: Texts | None = None, *, with_backward: bool = False
    ) -> torch.Tensor:
        """Return the loss of the vectors of a batch, column by column in mini-batches; propagated back if asked."""
        local = [torch.cat(column) for column in reps]
        local = [column.to(torch.promote_types(column.dtype, torch.float32)) for column in local]
        columns = [all_gather_with_grad(column) for column in local] if self._gathers else local
        # cut off here, so that each share of the rows goes back to the vectors and not through the processes
        leaves = [column.detach().requires_grad_() for column in columns] if with_backward else columns
        own = torch.arange(len(local[0]), device=local[0].device)
        rows = own + get_rank() * len(own) if self._gathers else own
        total = local[0].new_zeros(())
        with torch.autocast(local[0].device.type, enabled=False):
            for width, weight in self.widths.items():
                for share in rows.split(max(1, SCORES // (len(leaves[0]) * (len(leaves) - 1)))):
                    units = [F.normalize(column[:, :width], dim=1) for column in leaves]
                    loss = info_nce(units[0], torch.cat(units[1:]), share, labels or Texts(), self.settings.scoring)
                    loss = loss * (weight / len(own))
                    if with_backward:
                        loss.backward()
                        loss = loss.detach()
                    total = total + loss
        if with_backward:
            torch.autograd.backward(columns, [leaf.grad for leaf in leaves])
        return total

    @property
    def _gathers(self) -> bool:
        return self.settings.gather_across_devices and distributed.is_available() and distributed.is_initialized()

    def _texts(self, columns: list[dict[str, Any]], labels: torch.Tensor | None) -> Texts:
        """Return what is known of the texts of the global batch."""
        present = None if labels is None else _present(labels, len(columns) - 2)
        keys: list[torch.Tensor] | None = None
        if self.settings.mask_identical_texts:
            if any(TEXT_KEY not in column for column in columns):
                raise DataError(
                    f"A column came without {TEXT_KEY}, by which identical texts are known; give the trainer "
                    "data_collator=contrastive_collator(model), or set mask_identical_texts=False."
                )
            keys = [column[TEXT_KEY] for column in columns]
        if self._gathers:
            present = None if present is None else [all_gather(column) for column in present]
            keys = None if keys is None else [all_gather(column) for column in keys]
        return Texts(
            present=None if present is None else torch.cat(present).bool(),
            query_keys=None if keys is None else keys[0],
            document_keys=None if keys is None else torch.cat(keys[1:]),
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card says of the loss."""
        return {"settings": repr(self.settings)}


def _present(labels: torch.Tensor, negatives: int) -> list[torch.Tensor]:
    """Return for each document column whether its texts are there, as numbers: gathering knows no truth values."""
    if labels.dim() != 2 or labels.shape[1] != negatives:
        raise DataError(
            f"Labels of shape {tuple(labels.shape)} came with {negatives} hard negatives; the contrastive loss takes a "
            "list of 0 and 1 for each pair, one for each hard negative, that says whether it is there."
        )
    there = labels.long()
    return [torch.ones_like(there.new_empty(len(there))), *there.T.contiguous()]
