"""What trains an embedder, beside sentence-transformers' own losses: one file, one row of LOSSES and one test each."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from antiphon.losses.collating import content_collator
from antiphon.losses.head import release_padding
from antiphon.losses.information import Information, information
from antiphon.losses.mntp import MaskedNextTokenLoss, MaskedNextTokenSettings, MaskingSettings, masking_collator
from antiphon.losses.reconstruction import ReconstructionLoss, ReconstructionSettings
from antiphon.losses.vocabulary import linear_cross_entropy

LOSSES: Mapping[str, type[nn.Module]] = {"reconstruction": ReconstructionLoss, "mntp": MaskedNextTokenLoss}
"""The losses of recipes, by name."""

__all__ = [
    "LOSSES",
    "Information",
    "MaskedNextTokenLoss",
    "MaskedNextTokenSettings",
    "MaskingSettings",
    "ReconstructionLoss",
    "ReconstructionSettings",
    "content_collator",
    "information",
    "linear_cross_entropy",
    "masking_collator",
    "release_padding",
]
