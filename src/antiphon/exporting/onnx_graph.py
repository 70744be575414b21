"""A graph for ONNX Runtime, from token ids to the pooled, normalised vector.

Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from torch import nn

from antiphon.errors import ConfigError, ModelError, first_line
from antiphon.modules import SpanPooling, TemplateInput

OPSET = 20
GRAPH, SMALL_GRAPH = "model.onnx", "model_int8.onnx"
OUTPUT = "sentence_embedding"
_LARGEST_FILE = 2 << 30


class TensorEmbedder(nn.Module):
    """All modules of a model as one function of tensors."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.backbone = model[0].model
        self.after = nn.ModuleList(list(model)[1:])
        self.counts = isinstance(model[0], TemplateInput)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return (B, D) unit vectors of (B, T) ids, mask and, where a part is pooled, marks of that part."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if self.counts:  # positions count tokens, not padding
            given["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        features = {
            "token_embeddings": self.backbone(**given).last_hidden_state,
            "attention_mask": attention_mask,
            "pool_mask": attention_mask if token_type_ids is None else marked(token_type_ids, attention_mask),
        }
        for module in self.after:
            features = module(features)
        return nn.functional.normalize(features[OUTPUT], dim=-1)


def marked(marks_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return the marks, and for a sequence without any, an empty text where no EOS is said, its last token."""
    last_BT = mask_BT * (mask_BT.cumsum(dim=1) == mask_BT.sum(dim=1, keepdim=True))
    return marks_BT + last_BT * (marks_BT.sum(dim=1, keepdim=True) == 0)


def check(model: SentenceTransformer) -> None:
    """Raise a ModelError where the graph cannot hold what the model does, a ConfigError where a library is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"The ONNX export needs {error.name}; pip install 'antiphon[onnx]'.") from error
    for module in list(model)[1:]:
        if not isinstance(module, SpanPooling | Pooling | Dense | Normalize):
            raise ModelError(f"The graph cannot hold a {type(module).__name__} module; export to 'hub' instead.")
        if not getattr(module, "include_prompt", True):
            raise ModelError("The graph cannot leave a prompt out of the pooling; export to 'hub' instead.")


def marks_span(model: SentenceTransformer) -> bool:
    """Return whether the graph must be told which tokens are pooled: by the tokenizer's type ids."""
    return isinstance(model[1], SpanPooling) and model[1].pooling_mode != "last"


def write_graph(model: SentenceTransformer, path: Path) -> None:
    """Trace the model, which must be in float32, and write its graph with dynamic batch and length."""
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if marks_span(model) else [])]
    # one tensor each: torch takes inputs that are the same object for one input
    examples = tuple(torch.ones(2, 5, dtype=torch.long, device=model.device) for _ in names)
    embedder = TensorEmbedder(model).eval()
    try:
        with torch.inference_mode(), quietly():
            program = torch.onnx.export(
                embedder,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=[OUTPUT],
                dynamic_shapes=tuple({0: batch, 1: tokens} for _ in names),
                verbose=False,
            )
            size = sum(parameter.numel() * 4 for parameter in embedder.parameters())
            assert program is not None  # None is the answer of the older exporter
            program.save(str(path), external_data=size > _LARGEST_FILE // 2)
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ModelError(f"torch cannot trace this model into a graph: {first_line(error)}") from error


def quantise(path: Path, small: Path) -> None:
    """Write the graph with 8-bit weights, activations quantised as they come (dynamic quantisation, per channel).

    Weights take 7 of their bits: the products of processors without VNNI saturate in 16 bits beyond that, so that
    what is right on one machine would be wrong on another.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quietly():
        quantize_dynamic(path, small, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the exporter's warnings and log lines, which are about its own inside."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
