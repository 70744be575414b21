"""A model whose vectors another server computes: texts are read here and go there as token ids.

For engines that hold the weights and not the template: llama.cpp with a GGUF file, vLLM with a plain folder.
"""

from __future__ import annotations

from sentence_transformers import SentenceTransformer

from antiphon.encoding.tokenised import Reading, token_ids
from antiphon.errors import ConfigError, DataError, ParityError
from antiphon.model.beside import ById
from antiphon.model.parity import compare, encode, unlike_texts
from antiphon.model.server import Server
from antiphon.model.unit_vectors import unit
from antiphon.serving.error_responses import ApiError
from antiphon.serving.served_model import BatchKey, ServedModel, Vectors

ROUNDING = 0.35
"""An error of this many spreads at most may be rounding (blocks of 8 bits: 0.23 on SmolLM2); beyond it a server
computes something else."""


class UpstreamEmbedder(ServedModel):
    """Reads texts as the model does and asks another server for the vectors; the model's own weights are used once.

    At the start both embed a few texts: a server of other weights, of another pooling, or without the model's
    calibration, would answer for good and be wrong. Raises ConfigError for such a server and for one that takes no
    token ids, ParityError for one that does not answer.
    """

    def __init__(self, model: SentenceTransformer, server: Server) -> None:
        super().__init__(model)
        if not server.takes_ids:
            raise ConfigError(
                f"The server at {server.root} takes strings only, and this model needs token ids; use llama-server or "
                "vLLM."
            )
        self._server = server
        self._check()

    def _check(self) -> None:
        ids = ById(self._server, self.model, "query")
        found = ids.encode(unlike_texts())
        own = encode(self.model, unlike_texts())
        if found.shape != own.shape:
            raise ConfigError(
                f"The server at {self._server.root} gives vectors of {found.shape[-1]} dimensions and the model has "
                f"{own.shape[-1]}; it serves another model."
            )
        parity = compare(own, found, limit=ROUNDING)
        if not parity.equal:
            raise ConfigError(
                f"The server at {self._server.root} gives other vectors of the model's token ids than the model: error "
                f"against spread {parity.error_against_spread:.2g}, and rounding stays below {ROUNDING}. It "
                "serves other weights, pools otherwise, or lacks the model's calibration; antiphon doctor "
                f"{self._server.root} --model MODEL says more."
            )

    @property
    def templates(self) -> list[str]:
        """None: other templates need other weights' vectors, and these are elsewhere."""
        return []

    def encode(self, texts: list[str], reading: BatchKey) -> Vectors:
        """Return (N, D) float32 vectors of length 1; a 502 where the other server fails. In the worker thread only."""
        ids = token_ids(self.model, texts, Reading(self.prompt(reading), reading.task))
        try:
            vectors = self._server.encode(ids)
        except (DataError, ParityError) as error:
            raise ApiError(502, f"The server behind this one failed. {error}", code="upstream_failed") from error
        if vectors.shape != (len(texts), self.width):
            raise ApiError(
                502,
                f"The server behind this one gives vectors of {vectors.shape[-1]} dimensions and the model has "
                f"{self.width}; it serves another model.",
                code="upstream_failed",
            )
        return unit(vectors)
