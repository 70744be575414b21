"""The vocabulary head of an embedder: where its weight lives, and which of its family's scalings belong to it.

Tied embeddings are the head, live. An untied one hangs on the input module, `model[0].head`: on the SentenceTransformer
itself, a Sequential, it would become a step. There it is trained, moved and synchronised with the model's parameters.
Shapes: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from antiphon import compat
from antiphon.errors import CheckpointError, ModelError
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.weights import head_tensors

HeadTraining = Literal["trained", "frozen"]
HEAD_FILE = "head.safetensors"


@dataclass(frozen=True)
class Head:
    """The projection from states to logits: scale * states @ weight.T, capped where the family caps."""

    module: Transformer
    frozen: bool
    """Whether the projection gives its weight no gradient (tied embeddings still learn as inputs)."""
    scale: float
    softcap: float | None

    @property
    def weight(self) -> torch.Tensor:
        """Return the weight (V, D) as it is now; through peft's wrapper it is the adapted one."""
        own = getattr(self.module, "head", None)
        weight_VD: torch.Tensor = embedding_weight(self.module) if own is None else own.weight
        return weight_VD.detach() if self.frozen else weight_VD


def embedding_of(module: Transformer) -> nn.Module:
    """Return the module that embeds token ids."""
    embedding: nn.Module = module.model.get_input_embeddings()
    return embedding


def embedding_weight(module: Transformer) -> torch.Tensor:
    """Return the embedding's weight (V, D); through peft's wrapper it is the adapted one."""
    weight_VD: torch.Tensor = module.model.get_input_embeddings().weight
    return weight_VD


def head_of(model: SentenceTransformer, training: HeadTraining = "trained", *, given: nn.Linear | None = None) -> Head:
    """Return the head, hung on `model[0]` where it is untied: `given`, else the one there, else the base's.

    Raises ModelError where the family's logits are not those of its head, CheckpointError where an untied head is not
    in the folder that the model came from.
    """
    module = model[0]
    if not isinstance(module, Transformer):
        raise ModelError(f"The first module is a {type(module).__name__}; a causal language model is wanted there.")
    backbone, config = module.model, module.model.config.get_text_config()
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(copy.deepcopy(backbone.config), trust_remote_code=False)
    shape = whole.get_output_embeddings()
    if shape is None or shape.bias is not None:
        raise ModelError(f"The vocabulary head of {config.model_type} is no plain matrix, so it cannot be trained on.")
    if given is not None:
        hang(module, given)
    elif not config.tie_word_embeddings and not hasattr(module, "head"):
        weight = head_tensors(compat.source_of(config) or compat.source_of(backbone.config))["weight"]
        hang(module, _linear(weight.to(backbone.dtype)).to(backbone.device))
    if hasattr(module, "head"):
        module.head.requires_grad_(training == "trained")
    softcap = getattr(config, "final_logit_softcapping", None)
    head = Head(module, training == "frozen", _scale(config), softcap)
    _check(head, whole)
    return head


@contextmanager
def borrowed_head(model: SentenceTransformer) -> Iterator[Head]:
    """Give the head and leave the model as it was: none hung there that was not, none frozen that learned."""
    module = model[0]
    before = getattr(module, "head", None)
    learns = before is not None and before.weight.requires_grad
    try:
        yield head_of(model, "frozen")
    finally:
        if before is not None:
            before.requires_grad_(learns)
        elif hasattr(module, "head"):
            del module.head


def hang(module: Transformer, head: nn.Linear) -> None:
    """Hang an untied head on the input module.

    Sentence-transformers' folders, the trainer's checkpoints among them, hold no head, so a state without one leaves
    the head as it is; whoever writes a checkpoint writes the head beside it (`write_head`, `read_head`).
    """
    module.head = head
    module.register_load_state_dict_pre_hook(_keep_head)


def _keep_head(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    head = getattr(module, "head", None)
    if head is not None:
        state.setdefault(f"{prefix}head.weight", head.weight.detach())


def write_head(model: SentenceTransformer, folder: Path) -> None:
    """Write the untied head, where one hangs there, into a folder."""
    head = getattr(model[0], "head", None)
    if head is not None:
        save_file({"weight": head.weight.detach().cpu().contiguous()}, folder / HEAD_FILE)


@torch.no_grad()
def read_head(model: SentenceTransformer, folder: Path) -> None:
    """Take the untied head, where one hangs there, from a folder; CheckpointError where the folder has none."""
    head = getattr(model[0], "head", None)
    if head is None:
        return
    file = folder / HEAD_FILE
    if not file.exists():
        raise CheckpointError(f"{folder} has no {HEAD_FILE}, so the head that was trained with it is gone.")
    head.weight.copy_(load_file(file)["weight"])


def _linear(weight_VD: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight_VD.shape[1], weight_VD.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight_VD)
    return linear


def _scale(config: object) -> float:
    """Return the family's factor on its logits: Cohere multiplies, Granite divides."""
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


@torch.no_grad()
def _check(head: Head, whole: PreTrainedModel) -> None:
    """Raise a ModelError unless the family's own causal LM, on our backbone and weight, gives our logits."""
    backbone = head.module.model
    setattr(whole, whole.base_model_prefix, backbone)
    whole.get_output_embeddings().weight = nn.Parameter(head.weight.detach(), requires_grad=False)
    ids_BT = torch.arange(4, device=backbone.device)[None]
    with evaluation_mode(backbone):
        wanted = whole(input_ids=ids_BT, use_cache=False).logits[0].float()
        states_TD = backbone(input_ids=ids_BT, use_cache=False).last_hidden_state[0]
    logits_TV = (states_TD * head.scale @ head.weight.T).float()
    if head.softcap is not None:
        logits_TV = head.softcap * torch.tanh(logits_TV / head.softcap)
    tolerance = 1e-4 if states_TD.dtype in (torch.float32, torch.float64) else 5e-2
    if (logits_TV - wanted).abs().max() > tolerance * wanted.abs().max().clamp(min=1e-3):
        raise ModelError(
            f"{backbone.config.model_type} does more to its logits than antiphon knows, so it cannot be trained by "
            "reconstruction; train it contrastively."
        )


def release_padding(model: SentenceTransformer) -> None:
    """Let the padding token's embedding learn: call it after every load that will train.

    `nn.Embedding` gives the row `padding_idx` no gradient, and many causal LMs pad with EOS, the very token whose state
    is the vector. Padding is masked, so its row gets none from padding either way.

    Example:
        >>> import antiphon
        >>> from antiphon.losses import release_padding
        >>> model = antiphon.build("nano")
        >>> release_padding(model)
        >>> model[0].model.get_input_embeddings().padding_idx is None
        True
    """
    for part in model[0].model.get_input_embeddings().modules():  # peft wraps the embedding it adapts
        if isinstance(part, nn.Embedding):
            part.padding_idx = None
