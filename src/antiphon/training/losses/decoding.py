"""Passes that the losses share: a vector of a batch, and the cross-entropy of a text decoded behind a vector.

Every pass goes through the whole (possibly wrapped) model, so the hooks of DDP and autocast act; the pooled output of a
decode is passed over. Shapes: B batch, T tokens, D width, V vocabulary, N target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from antiphon import compat
from antiphon.encoding.layout import Group, lay_out
from antiphon.errors import DataError, ModelError
from antiphon.model.causality import is_bidirectional
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.modules import TemplateInput
from antiphon.training.losses.head import Head, embedding_of, embedding_weight
from antiphon.training.losses.packer import Packer
from antiphon.training.losses.vocabulary import Reduction, linear_cross_entropy

CONTENT_IDS, CONTENT_MASK = "content_ids", "content_mask"
"""Features of a column beside the encoder's: its text alone. No key may end in `input_ids`: sentence-transformers
would take it for one more column."""
CAUSAL = "is_causal"


def prepare(model: SentenceTransformer) -> None:
    """Make a model ready for decode passes: they can ask for causal attention, and are proved to get it.

    Raises ModelError for a pipeline whose vector cannot stand in a text, or whose attention cannot be made causal.
    """
    if any(isinstance(module, Normalize) for module in model):
        raise ModelError(
            "Reconstruction needs the raw vector and this model ends in Normalize; take that module off while training."
        )
    width = embedding_weight(model[0]).shape[1]
    if model.get_embedding_dimension() != width:
        raise ModelError(
            f"The vector has {model.get_embedding_dimension()} numbers and a token's embedding {width}, so the vector "
            "cannot take a token's place; reconstruction needs a model that ends in pooling."
        )
    compat.hand_on(model[0], (CAUSAL,))
    if is_bidirectional(model[0].model):
        _check_causal(model)


@torch.no_grad()
def _check_causal(model: SentenceTransformer) -> None:
    """Raise unless a decode pass of a bidirectional model is causal, with full and with padded rows."""
    embedding, vocabulary = embedding_of(model[0]), len(embedding_weight(model[0]))
    ids_BT = (torch.arange(12, device=model.device).view(2, 6) * 37 + 11) % vocabulary
    changed_BT = ids_BT.clone()
    changed_BT[:, 3] = (changed_BT[:, 3] + 1) % vocabulary
    full_BT = torch.ones_like(ids_BT)
    padded_BT = full_BT.clone()
    padded_BT[0, 4:] = 0
    with evaluation_mode(model):
        leaks = [
            not torch.equal(*(states(model, embedding(ids), mask, causal=True)[:, :3] for ids in (ids_BT, changed_BT)))
            for mask in (full_BT, padded_BT)
        ]
    if any(leaks):
        raise ModelError(
            f"{model[0].model.config.model_type} stays bidirectional when a pass asks for causal attention and would "
            'read what it has to predict; load it with attn_implementation="eager", or train it causally.'
        )


def states(
    model: torch.nn.Module, embedded_BTD: torch.Tensor, mask_BT: torch.Tensor, *, causal: bool, counted: bool = True
) -> torch.Tensor:
    """Return the last states (B, T, D) of embedded tokens, right-padded; `causal` overrules the configuration.

    Where the mask has holes, `counted=False` numbers the positions of a model with slots from 0 over all of the row.
    """
    # Attention's mask is the pool mask of a pass whose vector nobody reads: SpanPooling refuses to work without one.
    features = {"inputs_embeds": embedded_BTD, "attention_mask": mask_BT, "modality": "text"}
    if isinstance(_input_module(model), TemplateInput):
        features["pool_mask"] = mask_BT
        if not counted:
            features["position_ids"] = torch.arange(mask_BT.shape[1], device=mask_BT.device).expand_as(mask_BT)
    # A keyword of the call, not a change of the configuration: gradient checkpointing runs the layers again, later.
    result: torch.Tensor = model(features, **({CAUSAL: True} if causal else {}))["token_embeddings"]
    return result


def _input_module(model: torch.nn.Module) -> torch.nn.Module:
    """Return the first module of a SentenceTransformer, under whatever wraps it."""
    pipeline = next(module for module in model.modules() if isinstance(module, SentenceTransformer))
    first: torch.nn.Module = pipeline[0]
    return first


def vectors(model: torch.nn.Module, features: dict[str, Any]) -> torch.Tensor:
    """Return e (B, D) of one column; its features are left as they are."""
    read = {key: value for key, value in features.items() if key not in (CONTENT_IDS, CONTENT_MASK)}
    result: torch.Tensor = model(read)["sentence_embedding"]
    return result


def content(features: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids and the mask (B, T) of one column's text alone."""
    if CONTENT_IDS not in features or CONTENT_MASK not in features:
        raise DataError(
            f"A column came without {CONTENT_IDS} and {CONTENT_MASK}, the text to be rebuilt; give the trainer "
            "data_collator=content_collator(model)."
        )
    return features[CONTENT_IDS], features[CONTENT_MASK]


Decode = tuple[torch.Tensor, dict[str, Any]]
"""A vector (B, D) of each text, and the features of the column that is decoded behind it."""


def cross_entropy(
    model: torch.nn.Module,
    head: Head,
    anchor_BD: torch.Tensor,
    features: dict[str, Any],
    *,
    reduction: Reduction = "mean",
    chunk_size: int,
) -> torch.Tensor:
    """Return -log p(content | anchor), over the tokens of the batch (Anchor Embedding, section 3.1).

    The input is [e; Embed(x_1 .. x_T-1)] at positions 0 .. T-1 and the state at position i predicts x_i+1: the last
    token is nobody's context. EOS is no target.
    """
    return _scored(head, _padded_states(model, head, anchor_BD, features), features, reduction, chunk_size)


def cross_entropies(
    model: torch.nn.Module, head: Head, decodes: Sequence[Decode], *, packer: Packer | None, chunk_size: int
) -> list[torch.Tensor]:
    """Return the mean cross-entropy of each decode; with a packer all go through the model at once, unpadded."""
    if packer is None or not all(bool(content(features)[1].any()) for _, features in decodes):
        found = [_padded_states(model, head, anchor_BD, features) for anchor_BD, features in decodes]
    else:
        found = _packed_states(model, head, decodes, packer)
    return [
        _scored(head, states_ND, features, "mean", chunk_size)
        for states_ND, (_, features) in zip(found, decodes, strict=True)
    ]


def _scored(
    head: Head, states_ND: torch.Tensor, features: dict[str, Any], reduction: Reduction, chunk_size: int
) -> torch.Tensor:
    ids_BT, mask_BT = content(features)
    return linear_cross_entropy(
        states_ND * head.scale,
        head.weight,
        ids_BT[mask_BT.bool()],  # padding never reaches the vocabulary
        chunk_size=chunk_size,
        reduction=reduction,
        softcap=head.softcap,
    )


def _padded_states(
    model: torch.nn.Module, head: Head, anchor_BD: torch.Tensor, features: dict[str, Any]
) -> torch.Tensor:
    """Return the states (N, D) that predict the content's tokens."""
    ids_BT, mask_BT = content(features)
    embedded_BTD = embedding_of(head.module)(ids_BT[:, :-1])
    first_B1D = anchor_BD[:, None].to(embedded_BTD.dtype)
    attended_BT = torch.cat([mask_BT.new_ones(len(mask_BT), 1), mask_BT[:, :-1]], dim=1)
    hidden_BTD = states(
        model,
        torch.cat([first_B1D, embedded_BTD], dim=1),
        attended_BT,
        causal=is_bidirectional(head.module.model),
    )
    return hidden_BTD[mask_BT.bool()]


def _packed_states(model: torch.nn.Module, head: Head, decodes: Sequence[Decode], packer: Packer) -> list[torch.Tensor]:
    """Return the same states, from rows without padding in one forward."""
    inputs, anchors, lengths = [], [], []
    for anchor_BD, features in decodes:
        ids_BT, mask_BT = content(features)
        there_BT = mask_BT.bool()
        inputs.append(ids_BT[:, :-1][there_BT[:, 1:]])  # all but each text's last token
        anchors.append(anchor_BD[there_BT[:, 0]])
        lengths.append(there_BT.sum(dim=1)[there_BT[:, 0]].cpu().numpy())
    embedded_ND = embedding_of(head.module)(torch.cat(inputs))
    vectors_BD = torch.cat(anchors).to(embedded_ND.dtype)
    long_B = np.concatenate(lengths)
    first_N = np.zeros(int(long_B.sum()), dtype=bool)
    first_N[np.cumsum(long_B) - long_B] = True
    source_N = np.where(first_N, np.cumsum(first_N) - 1, len(long_B) + np.cumsum(~first_N) - 1)
    layout = lay_out(long_B, [Group(np.arange(len(long_B)))], int(long_B.max()))
    device = embedded_ND.device
    rows_RWD = torch.cat([vectors_BD, embedded_ND])[torch.from_numpy(source_N[layout.token_RW]).to(device)]
    states_PD = packer.states(model, {"inputs_embeds": rows_RWD}, layout, causal=True)
    states_ND = states_PD[torch.from_numpy(layout.place_N).to(device)]
    return list(states_ND.split([int(part.sum()) for part in lengths]))
