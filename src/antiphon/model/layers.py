"""Fewer layers: the first of a decoder's, as a model that any reader takes for a smaller one."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from antiphon.errors import ConfigError, ModelError

_COUNTED_FROM_THE_END = ("num_kv_shared_layers",)
"""Settings that speak of the last layers: without those the first would mean something else."""


def keep_layers(model: PreTrainedModel, layers: int) -> None:
    """Keep the first `layers` of a decoder, and its final norm behind them; the configuration says the same.

    The norm stays because every stock reader has one there. What it weighs each dimension by is undone by a calibration
    that scales dimensions. Raises ConfigError for a number that the model does not have, ModelError for a decoder whose
    layers cannot be told or whose first layers depend on the last.
    """
    config, kind = model.config, model.config.model_type
    whole = len(layers_of(model))
    check_layers(layers)
    if layers > whole:
        raise ConfigError(f"layers is {layers} and the model has {whole}; take a number from 1 to {whole}.")
    counted = next((name for name in _COUNTED_FROM_THE_END if getattr(config, name, None)), None)
    if counted is not None and layers < whole:
        raise ModelError(f"A {kind} shares states between its last layers ({counted}), so none can be left off.")
    model.layers = model.layers[:layers]
    config.num_hidden_layers = layers
    for name, value in vars(config).items():
        if "layer" in name and isinstance(value, list | tuple) and len(value) == whole:  # one entry a layer
            setattr(config, name, list(value[:layers]))


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of a decoder; ModelError where they cannot be told."""
    layers: nn.ModuleList | None = getattr(model, "layers", None)
    if layers is None or len(layers) != model.config.num_hidden_layers:
        raise ModelError(
            f"The layers of a {model.config.model_type} cannot be told, so none can be left off; leave layers out."
        )
    return layers


def check_layers(layers: object) -> None:
    """Raise a ConfigError for what is no number of layers."""
    if not isinstance(layers, int) or isinstance(layers, bool) or layers < 1:
        raise ConfigError(
            f"layers is {layers!r}; a whole number of at least 1 is wanted (antiphon.choose_layers finds one)."
        )
