"""SimCSE without labels (arXiv 2104.08821): a text is its own positive, told apart by dropout alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError, DataError
from antiphon.training.losses.contrastive import BatchSettings, ContrastiveLoss, ContrastiveSettings


@dataclass(frozen=True, kw_only=True)
class SimCSESettings(BatchSettings):
    """The defaults are LLM2Vec's (arXiv 2404.05961, appendix)."""

    dropout: float = 0.3
    """Of the attention weights of the backbone, while this loss trains; it is not saved with the model."""
    temperature: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.dropout < 1:
            raise ConfigError(
                f"dropout is {self.dropout}; SimCSE needs a share between 0 and 1, or all texts are alike."
            )
        self.contrastive  # its own checks  # noqa: B018

    @property
    def contrastive(self) -> ContrastiveSettings:
        """Return the settings of the contrastive loss of a text and itself."""
        return ContrastiveSettings(**{field.name: getattr(self, field.name) for field in fields(BatchSettings)})


class SimCSELoss(ContrastiveLoss):
    """The contrastive loss of the first column and itself, embedded twice under different dropout.

    Raises ConfigError for a backbone without attention dropout.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import SimCSELoss, SimCSESettings
        >>> model = antiphon.build("nano", bidirectional=True)
        >>> loss = SimCSELoss(model, SimCSESettings(dropout=0.3, mask_identical_texts=False))
        >>> abs(float(loss([model.preprocess(["sort a list"])], None).detach()))  # nothing to be told from
        0.0
    """

    share_beginnings = False  # what dropout leaves of them would be alike in both passes, or in unlike texts

    def __init__(self, model: SentenceTransformer, settings: SimCSESettings | None = None) -> None:
        settings = settings or SimCSESettings()
        super().__init__(model, settings.contrastive)
        set_dropout(model, settings.dropout)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of one batch; DataError where there is no column."""
        columns = list(sentence_features)
        if not columns:
            raise DataError("SimCSE needs a text column and none came.")
        return super().forward([columns[0], columns[0]])


def set_dropout(model: SentenceTransformer, share: float) -> None:
    """Set the dropout of attention weights on the layers, not in the configuration, which is saved.

    Raises ConfigError for a backbone that has none.
    """
    layers = [part for part in model[0].model.modules() if hasattr(part, "attention_dropout")]
    if not layers:
        raise ConfigError(f"{model[0].model.config.model_type} has no attention dropout, on which SimCSE lives.")
    for layer in layers:
        layer.attention_dropout = share
