"""What is needed to open a model again: its base and how it reads; kept beside the vectors that it made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from antiphon import compat, nano
from antiphon.model.build import build
from antiphon.model.causality import is_bidirectional
from antiphon.model.checkpoint import load
from antiphon.model.description import pooling_of
from antiphon.model.opening import is_embedder
from antiphon.model.parity import dtype_of
from antiphon.text.template import Template, template_of


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model came from and how it reads texts. The fields are those of `build`, and of JSON."""

    base: str
    """A folder, a hub id or "nano"; empty where it is not known."""
    revision: str | None
    """The commit of a hub repository."""
    template: dict[str, Any] | None
    pooling: str
    max_tokens: int | None
    layers: int | None
    bidirectional: bool
    prompts: dict[str, str]
    default_prompt_name: str | None
    dtype: str

    @classmethod
    def of(cls, model: SentenceTransformer) -> Origin:
        """Return the origin of a model."""
        inner = getattr(model[0], "model", None)
        config = getattr(inner, "config", None)
        base = "" if config is None else compat.source_of(config)
        template = template_of(model)
        return cls(
            base="nano" if base == str(nano.folder()) else str(Path(base).resolve()) if Path(base).is_dir() else base,
            revision=None if config is None else compat.revision_of(config),
            template=None if template is None else template.to_dict(),
            pooling=pooling_of(model),
            max_tokens=model.max_seq_length,
            layers=getattr(config, "num_hidden_layers", None),
            bidirectional=inner is not None and is_bidirectional(inner),
            prompts={name: prompt for name, prompt in (model.prompts or {}).items() if prompt},
            default_prompt_name=model.default_prompt_name,
            dtype=dtype_of(model),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON file."""
        return asdict(self)

    def open(self, *, device: str | None = None) -> SentenceTransformer:
        """Open the model again; what `build` and `load` raise where the base is not there any more."""
        held: dict[str, Any] = {"dtype": self.dtype, "device": device}
        if is_embedder(self.base):
            model = load(self.base, **held)
        else:
            shape: dict[str, Any] = {
                "pooling": "last" if self.pooling == "lasttoken" else self.pooling,
                "layers": self.layers,
            }
            if self.template is not None:
                shape["template"] = Template.from_dict(self.template)
            model = build(
                self.base,
                max_tokens=self.max_tokens or 512,
                bidirectional=self.bidirectional,
                **held,
                **shape,
            )
        model.prompts = {"query": "", "document": "", **self.prompts}
        model.default_prompt_name = self.default_prompt_name
        return model
