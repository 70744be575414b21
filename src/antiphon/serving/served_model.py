"""The one model of a server, as its routes see it: how texts are read, what they cost, and their vectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from antiphon.encoding import Compile, Encoder
from antiphon.errors import ConfigError
from antiphon.model.prompts import encode_method, prompt_of, side_of
from antiphon.model.unit_vectors import unit
from antiphon.modules import POOLINGS, SpanPooling, TemplateInput
from antiphon.serving.cutting import Space
from antiphon.serving.input_texts import TextTokenizer
from antiphon.text.chat import resolve
from antiphon.text.template import TEMPLATES, Side, named, template_of

Vectors = npt.NDArray[np.float32]

SHORT = "a"
EDGES = 4


@dataclass(frozen=True)
class BatchKey:
    """How a text is read: the key by which texts go into one batch."""

    task: Side | None = None
    """The side; None is what `encode` without a task does, the query variant of a template."""
    prompt_name: str | None = None
    """The name of one of the model's prompts; None is the side's own."""
    prompt: str | None = None
    """A prompt of the request's own, in place of any by name."""
    view: str = ""
    """Another template and pooling over the same weights, as `template/pooling`; empty is the model as it is."""


class ServedModel:
    """A model and what is needed around it. `encode` belongs to one thread; everything else may run in any."""

    def __init__(self, model: SentenceTransformer, *, compile: Compile = False) -> None:
        self.model = model
        self.tokenizer = TextTokenizer(model)
        self.width = _width(model)
        self._compile = compile
        self._views: dict[str, SentenceTransformer] = {}

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.model, compile=self._compile)

    @property
    def prompt_names(self) -> list[str]:
        """The names of the model's prompts."""
        return sorted(self.model.prompts or {})

    @property
    def templates(self) -> list[str]:
        """The templates that the model's weights can be seen under; none where its template lives elsewhere."""
        if not isinstance(self.model[0], TemplateInput):
            return []
        has_chat = bool(getattr(self.model.tokenizer, "chat_template", None))
        return [name for name in TEMPLATES if name != "chat" or has_chat]

    def reading(
        self,
        side: Side | None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        instruction: str | None = None,
    ) -> BatchKey:
        """Return how a request wants its texts read.

        A prompt's name that stands for documents picks that side where `side` does not say. A prompt is taken as it
        stands, an instruction is put where the template wants it. Raises ConfigError for a prompt that the model has
        not, or an instruction that it has no place for.
        """
        if instruction is not None:
            prompt = prompt_of(self.model, side, instruction=instruction)
        prompt_of(self.model, side, prompt_name=prompt_name)
        return BatchKey(side_of(prompt_name) if side is None else side, prompt_name, prompt)

    def space(self, reading: BatchKey) -> Space | None:
        """Return the room of a sequence, None without a limit; in the worker thread only.

        What stands beside the text is measured on a short one, with a few tokens more for what may join at its edges.
        """
        limit = self.model.max_seq_length
        if limit is None:
            return None
        side: Side = "document" if reading.task == "document" else "query"
        features = self.model.preprocess([SHORT], prompt=self.prompt(reading) or None, task=side)
        template = template_of(self.model)
        copies = 1 if template is None else template.copies(side)
        frame = int(features["attention_mask"].sum()) - copies * self.tokenizer.counts([SHORT])[0]
        return Space(longest=max(limit - frame - EDGES, 0), frame=frame, copies=copies)

    def prompt(self, reading: BatchKey) -> str:
        """Return the prompt that texts of a reading are read with."""
        if reading.prompt is not None:
            return reading.prompt
        return prompt_of(self.model, reading.task, prompt_name=reading.prompt_name)

    def view(self, template: str, pooling: str) -> BatchKey:
        """Return the reading of a text under another template; ConfigError where that cannot be."""
        if template not in self.templates:
            raise ConfigError(
                f"This model cannot be seen under template {template[:60]!r}; it can be under "
                f"{', '.join(self.templates) or 'its own only'}."
            )
        if pooling not in POOLINGS:
            raise ConfigError(f"There is no pooling {pooling[:60]!r}; take one of {', '.join(POOLINGS)}.")
        return BatchKey(view=f"{template}/{pooling}")

    def costs(self, counts: Sequence[int], reading: BatchKey) -> list[int]:
        """Return about how many tokens the sequences of texts have, from the tokens of the texts, N numbers."""
        most = self.model.max_seq_length or max(counts, default=1)
        template = template_of(self.model)
        if reading.view:
            template = named(reading.view.partition("/")[0])
        side: Side = "document" if reading.task == "document" else "query"
        copies = 1 if template is None else template.copies(side)
        # frames and special tokens are a few tokens more, for which an exact number is not worth a second tokenising
        return [copies * min(count, most) + 16 for count in counts]

    def encode(self, texts: list[str], reading: BatchKey) -> Vectors:
        """Return (N, D) float32 vectors of length 1; ModelError where one is broken. In the worker thread only."""
        if reading.view:
            raw = self._view(reading.view).encode(texts, show_progress_bar=False, convert_to_numpy=True)
            return unit(np.asarray(raw, dtype=np.float32))
        encode = encode_method(self._encoder, reading.task)
        return unit(encode(texts, prompt_name=reading.prompt_name, prompt=reading.prompt))

    def _view(self, view: str) -> SentenceTransformer:
        if view not in self._views:
            self._views[view] = self._seen(*view.split("/"))
        return self._views[view]

    def _seen(self, template: str, pooling: str) -> SentenceTransformer:
        # a shallow copy of a module shares its weights, and the template is an attribute of the copy
        module = copy.copy(self.model[0])
        module.template = resolve(named(template), module.tokenizer).to_dict()
        seen = SentenceTransformer(
            modules=[module, SpanPooling(module.get_embedding_dimension(), pooling)],
            prompts={"query": "", "document": ""},
            similarity_fn_name="cosine",
            device=str(self.model.device),
        )
        return seen.eval()


def _width(model: SentenceTransformer) -> int:
    width: Any = model.get_embedding_dimension()
    return int(width) if width else int(model.encode(["one text"], show_progress_bar=False).shape[1])
