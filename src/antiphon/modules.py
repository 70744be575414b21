"""The two sentence-transformers modules of ours: a template around the text, and pooling over the marked span.

Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args

import torch
from sentence_transformers.base.modules import Module, Transformer
from transformers import PretrainedConfig

from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.text.template import Side, Template
from antiphon.text.tokens import PieceTokenizer, Sequenced, check_texts, sequences

PoolingMode = Literal["last", "mean", "weighted_mean"]
POOLINGS: tuple[PoolingMode, ...] = get_args(PoolingMode)
TEXT_ONLY: dict[str, Any] = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def positions_of(config: PretrainedConfig) -> int | None:
    """Return the most tokens of a sequence whose vector depends on no other text of its batch; None for no bound."""
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    bounds = [bound for bound in (positions, frequencies_bound(config)) if isinstance(bound, int) and bound > 0]
    return min(bounds, default=None)


def frequencies_bound(config: PretrainedConfig) -> int | None:
    """Return the length beyond which a model takes its rotary frequencies by the longest text of a batch.

    LongRoPE (Phi-3) and dynamic NTK do: beside a longer text the vector of a short one would change. None for others.
    """
    inner = config.get_text_config(decoder=True)
    ropes = getattr(inner, "rope_parameters", None) or {}
    kinds = [ropes, *(rope for rope in ropes.values() if isinstance(rope, Mapping))]  # one, or one for a type of layer
    bounds = [
        rope.get("original_max_position_embeddings") or getattr(inner, "max_position_embeddings", None)
        for rope in kinds
        if rope.get("rope_type") == "longrope" or "dynamic" in str(rope.get("rope_type"))
    ]
    return min((int(bound) for bound in bounds if bound), default=None)


class TemplateInput(Transformer):
    """A causal LM that reads its texts through a template; `prompt=` fills the template's slot.

    Features out of `preprocess`: `input_ids`, `attention_mask`, `pool_mask` of shape (B, T).
    """

    config_keys = [*Transformer.config_keys, "template"]

    def __init__(self, model_name_or_path: str, *, template: dict[str, Any], **kwargs: Any) -> None:
        if not isinstance(template, dict) or not set(template) <= {field.name for field in fields(Template)}:
            raise ModelError(f"The template of {model_name_or_path} is {template!r:.80}, which is none of antiphon's.")
        # without a modality_config a tokenizer's chat template would turn every text into a message
        kwargs = {"modality_config": TEXT_ONLY, "module_output_name": "token_embeddings", **kwargs}
        super().__init__(model_name_or_path, **kwargs)
        self.template = template
        self.can_flatten_inputs = False  # texts are padded; the packed path of ours is another module's business
        self._pieces: tuple[int, PieceTokenizer] | None = None

    @property
    def template_spec(self) -> Template:
        """Return the template as an object."""
        return Template.from_dict(self.template)

    @property
    def piece_tokenizer(self) -> PieceTokenizer:
        """Return the tokenizer of pieces, made anew when the tokenizer was replaced."""
        if self._pieces is None or self._pieces[0] != id(self.tokenizer):
            self._pieces = (id(self.tokenizer), PieceTokenizer(self.tokenizer))
        return self._pieces[1]

    def preprocess(
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the features of texts; `task` picks the side, None means the query's.

        Raises ConfigError where the template takes no instruction or the instruction leaves no room, DataError where
        an input is no string.
        """
        try:
            return self._preprocess(inputs, prompt or "", task, max_length)
        except TypeError as error:
            # sentence-transformers takes a TypeError for an old signature and calls again with the prompt glued on
            raise DataError(f"The texts could not be prepared: {error}.") from error

    def _preprocess(
        self, inputs: Sequence[str], prompt: str, task: str | None, max_length: int | None
    ) -> dict[str, Any]:
        if not inputs:
            return {}
        side: Side = "document" if task == "document" else "query"
        rows = sequences(
            check_texts(inputs),
            self.template_spec,
            self.piece_tokenizer,
            prompt=prompt,
            side=side,
            max_tokens=max_length or self.max_seq_length or 512,
        )
        self._check_length(rows)
        return {**self.pad(rows), "modality": "text"}

    def _check_length(self, rows: list[Sequenced]) -> None:
        positions = positions_of(self.config)
        most = max(len(row.ids) for row in rows)
        if positions is not None and positions < most:
            raise ConfigError(
                f"A text in template {self.template_spec.name!r} takes {most} tokens and the model has {positions} "
                f"positions; lower max_seq_length (now {self.max_seq_length})."
            )

    def pad(self, rows: list[Sequenced]) -> dict[str, torch.Tensor]:
        """Return (B, T) tensors, padded on the tokenizer's side; masks never depend on which id pads."""
        width = max(len(row.ids) for row in rows)
        pad = (
            self.tokenizer.pad_token_id
            if self.tokenizer.pad_token_id is not None
            else self.piece_tokenizer.specials.eos or 0
        )
        left = self.tokenizer.padding_side == "left"

        def padded(values: list[Any], fill: int) -> list[Any]:
            filling = [fill] * (width - len(values))
            return filling + values if left else values + filling

        return {
            "input_ids": torch.tensor([padded(row.ids, pad) for row in rows], dtype=torch.long),
            "attention_mask": torch.tensor([padded([1] * len(row.ids), 0) for row in rows], dtype=torch.long),
            "pool_mask": torch.tensor([padded([int(p) for p in row.pooled], 0) for row in rows], dtype=torch.long),
        }

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the model and return the features with `token_embeddings` (B, T, D) added; nothing in them is changed."""
        known = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "modality"}
        given = {key: value for key, value in features.items() if key in known}
        mask = given.get("attention_mask")
        if mask is not None and mask.dim() == 2 and "position_ids" not in given and self._takes_positions:
            # positions count tokens, not padding: what pads on which side then changes nothing
            given["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return {**features, **super().forward(given, **kwargs)}

    @property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.model.forward).parameters


class SpanPooling(Module):
    """Pool the hidden states of the marked span: its last token, its mean, or its mean with weights 1..n.

    In: `token_embeddings` (B, T, D) and `pool_mask` (B, T). Out: `sentence_embedding` (B, D), summed and given in fp32.
    """

    config_keys = ["embedding_dimension", "pooling_mode"]

    def __init__(self, embedding_dimension: int, pooling_mode: str) -> None:
        super().__init__()
        if pooling_mode not in POOLINGS:
            raise ConfigError(f"There is no pooling {pooling_mode!r}; take one of {', '.join(POOLINGS)}.")
        self.embedding_dimension = embedding_dimension
        self.pooling_mode = pooling_mode

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the features with `sentence_embedding` added."""
        if "pool_mask" not in features:
            raise ModelError("SpanPooling found no pool_mask: it works behind TemplateInput, which marks the span.")
        vectors = POOL[self.pooling_mode](features["token_embeddings"], features["pool_mask"])
        return {**features, "sentence_embedding": vectors}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the settings; there are no weights."""
        self.save_config(output_path)


def pool_last(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return the state at the last marked position, (B, D)."""
    positions = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (mask_BT * positions).argmax(dim=1)
    return hidden_BTD[torch.arange(len(hidden_BTD), device=hidden_BTD.device), last_B].float()


def pool_mean(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return the mean over marked positions, (B, D)."""
    return _weighted(hidden_BTD, mask_BT.float())


def pool_weighted_mean(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return the mean with weights 1..n from the first marked position on, (B, D) (SGPT's position weights)."""
    return _weighted(hidden_BTD, (mask_BT.cumsum(dim=1) * mask_BT).float())


def _weighted(hidden_BTD: torch.Tensor, weights_BT: torch.Tensor) -> torch.Tensor:
    # a product with zero would let an infinity or NaN of a padded position in: those states are set to zero first
    marked_BTD = hidden_BTD.float().masked_fill(weights_BT[:, :, None] == 0, 0.0)
    return torch.einsum("bt,btd->bd", weights_BT, marked_BTD) / weights_BT.sum(dim=1, keepdim=True)


POOL = {"last": pool_last, "mean": pool_mean, "weighted_mean": pool_weighted_mean}
MODULES = {
    f"{home}.{kind.__name__}": kind
    for kind in (TemplateInput, SpanPooling)
    for home in ("antiphon.modules", "modeling_antiphon")
}
"""The classes that `antiphon.load` admits beside sentence-transformers' own, by the name in modules.json; the second
home is that of a published folder, which carries a copy of them that is never run here."""
