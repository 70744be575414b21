"""LoRA on an embedder: attach adapters, and merge them into the weights, so that what is saved needs no adapter."""

from __future__ import annotations

from typing import Annotated

from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper
from pydantic import BaseModel, ConfigDict, Field
from sentence_transformers import SentenceTransformer

from antiphon import compat
from antiphon.errors import ConfigError
from antiphon.text.template import template_of
from antiphon.text.tokens import Specials

ADAPTER = "default"


class Lora(BaseModel):
    """Low-rank adapters (LoRA, arXiv 2106.09685), merged into the weights when the stage ends."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    rank: Annotated[int, Field(ge=1)] = 16
    """Of the two matrices beside each layer."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """What is added is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of what goes into an adapter."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of linear layers of the backbone, or all of them."""
    train_eos: bool = False
    """Whether the embedding of EOS, the token whose state is the vector, is trained too (Echo, appendix F)."""


def attach(model: SentenceTransformer, adapter: Lora) -> None:
    """Put fresh adapters on the backbone, in place; only they are trained then.

    Raises ConfigError where the backbone has adapters already or no layer of the names.
    """
    compat.check_lora()
    backbone = model[0].model
    if is_adapted(model):
        raise ConfigError("The model carries adapters already; merge them before new ones are attached.")
    tokens = None
    if adapter.train_eos:
        embedding = backbone.get_input_embeddings()
        name = next(name for name, module in backbone.named_modules() if module is embedding)
        tokens = {name.split(".")[-1]: [_pooled_eos(model)]}
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets),
        trainable_token_indices=tokens,
    )
    try:
        model.add_adapter(config, ADAPTER)
    except ValueError as error:
        compat.forget_adapters(backbone)  # it remembers adapters that it could not attach
        raise ConfigError(f"LoRA cannot be attached to {adapter.targets!r}: {error}") from error


def _pooled_eos(model: SentenceTransformer) -> int:
    """Return the id of the EOS whose state is the vector; ConfigError where the template says none."""
    template = template_of(model)
    if template is not None and not template.eos:
        raise ConfigError(f"train_eos trains the EOS and template {template.name!r} says none; leave it out.")
    return Specials.of(model.tokenizer).closing


def is_adapted(model: SentenceTransformer) -> bool:
    """Return whether the backbone carries adapters."""
    return any(isinstance(module, BaseTunerLayer | TrainableTokensWrapper) for module in model[0].model.modules())


def merge(model: SentenceTransformer) -> None:
    """Add the adapters to the weights and take them off, in place; a model without any is left as it is.

    Sentence-transformers knows adapters that were added, not how to take them off: each layer is merged and replaced
    by the plain one in it. The result has no trace of them, so that the next stage's adapters name the right base.
    """
    backbone = model[0].model
    for kind in (TrainableTokensWrapper, BaseTunerLayer):  # the wrapper holds a tuner layer of its own: outer first
        tuners = {
            name: layer.token_adapter if isinstance(layer, TrainableTokensWrapper) else layer
            for name, layer in backbone.named_modules()
            if isinstance(layer, kind)
        }
        for tuner in tuners.values():
            tuner.merge()
        replaced: list[str] = []
        for name, tuner in tuners.items():
            # fused experts carry one wrapper for each matrix, one in the other: the outermost gives the plain layer
            if not any(name.startswith(f"{outer}.") for outer in replaced):
                backbone.set_submodule(name, tuner.get_base_layer())
                replaced.append(name)
    compat.forget_adapters(backbone)
    backbone.requires_grad_(True)
