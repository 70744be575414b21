"""What trains an embedder, beside sentence-transformers' own losses: one file, one row of LOSSES and one test each."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.training.losses.collating import content_collator
from antiphon.training.losses.contrastive import ContrastiveLoss, ContrastiveSettings
from antiphon.training.losses.head import release_padding
from antiphon.training.losses.information import Information, information
from antiphon.training.losses.kinds import LossCost, LossKind
from antiphon.training.losses.mntp import (
    MaskedNextTokenLoss,
    MaskedNextTokenSettings,
    MaskingSettings,
    masking_collator,
)
from antiphon.training.losses.next_token import NextTokenLoss, NextTokenSettings, next_token_collator
from antiphon.training.losses.published_decode import reconstruction_collator
from antiphon.training.losses.reconstruction import ReconstructionLoss, ReconstructionSettings
from antiphon.training.losses.simcse import SimCSELoss, SimCSESettings
from antiphon.training.losses.text_keys import contrastive_collator
from antiphon.training.losses.vocabulary import linear_cross_entropy

_KINDS = (
    LossKind(
        "reconstruction",
        ReconstructionSettings,
        ReconstructionLoss,
        lambda model, arguments, settings: reconstruction_collator(model, arguments, settings.layout),
        ReconstructionSettings.cost,
        texts=2,
    ),
    LossKind(
        "contrastive",
        ContrastiveSettings,
        ContrastiveLoss,
        lambda model, arguments, settings: contrastive_collator(model, arguments),
        ContrastiveSettings.cost,
    ),
    LossKind(
        "mntp",
        MaskedNextTokenSettings,
        MaskedNextTokenLoss,
        lambda model, arguments, settings: masking_collator(model, settings, arguments),
        lambda settings: LossCost(projected_texts=settings.share),
        texts=1,
        blocks=True,
    ),
    LossKind(
        "next_token",
        NextTokenSettings,
        NextTokenLoss,
        lambda model, arguments, settings: next_token_collator(model, arguments),
        lambda settings: LossCost(projected_texts=1.0),
        texts=1,
        blocks=True,
    ),
    LossKind(
        "simcse",
        SimCSESettings,
        SimCSELoss,
        lambda model, arguments, settings: contrastive_collator(model, arguments),
        lambda settings: settings.contrastive.cost(),
        texts=2,
    ),
)
LOSSES: Mapping[str, LossKind] = {kind.name: kind for kind in _KINDS}
"""The losses of recipes, by name."""

__all__ = [
    "LOSSES",
    "ContrastiveLoss",
    "ContrastiveSettings",
    "Information",
    "LossCost",
    "LossKind",
    "MaskedNextTokenLoss",
    "MaskedNextTokenSettings",
    "MaskingSettings",
    "NextTokenLoss",
    "NextTokenSettings",
    "ReconstructionLoss",
    "ReconstructionSettings",
    "SimCSELoss",
    "SimCSESettings",
    "content_collator",
    "contrastive_collator",
    "information",
    "linear_cross_entropy",
    "masking_collator",
    "next_token_collator",
    "reconstruction_collator",
    "release_padding",
]
