"""The bodies for reranking: Cohere's and Jina's, Voyage's where it differs, and text-embeddings-inference's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, model_validator

from antiphon.serving.schema import Body, Limit, ModelName, Text, TruncationDirection, Usage, WrappedText


class RerankRequest(Body):
    """A query and the documents to put in order, as `documents`, or as `texts` for an answer in TEI's shape."""

    query: Text
    documents: Annotated[list[Text | WrappedText], Field(min_length=1)] | None = None
    texts: Annotated[
        Annotated[list[Text], Field(min_length=1)] | None,
        Field(description="TEI's name for documents; the answer is in its shape then."),
    ] = None
    model: ModelName = None
    top_n: Annotated[Limit, Field(description="Return so many of the best; all without it.")] = None
    top_k: Annotated[Limit, Field(description="Voyage's name for top_n.")] = None
    return_documents: Annotated[bool | None, Field(description="Send the documents' texts back.")] = False
    return_text: Annotated[bool | None, Field(description="TEI's name for return_documents.")] = False
    instruction: Annotated[
        StrictStr | None, Field(max_length=8192, description="An instruction for the query, in place of the model's.")
    ] = None
    max_tokens_per_doc: Annotated[Limit, Field(description="Taken where no document is longer than that.")] = None
    max_chunks_per_doc: Annotated[Limit, Field(description="Not used: a document is never cut into chunks.")] = None
    rank_fields: Annotated[list[Literal["text"]] | None, Field(description="Not used.")] = None
    truncation: Annotated[StrictBool | None, Field(description="false: a text that would be cut is refused.")] = None
    truncate: Annotated[StrictBool | None, Field(description="TEI's name for truncation.")] = None
    truncation_direction: TruncationDirection = None
    raw_scores: Annotated[StrictBool | None, Field(description="Not used: a score is a cosine either way.")] = None
    user: Annotated[StrictStr | None, Field(description="Not used.")] = None
    priority: Annotated[StrictInt | None, Field(description="Not used.")] = None

    @property
    def is_voyage(self) -> bool:
        """Whether the request has fields that only Voyage's clients send."""
        return not {"top_k", "truncation"}.isdisjoint(self.model_fields_set)

    @model_validator(mode="after")
    def _one_list(self) -> RerankRequest:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("Give the documents to put in order, as documents or, for TEI's answer, as texts.")
        if self.top_n is not None and self.top_k is not None and self.top_n != self.top_k:
            raise ValueError("top_n and top_k are one thing; give one of them.")
        return self


class Ranked(BaseModel):
    """A document's place in the request and its cosine with the query."""

    index: int
    relevance_score: float
    document: WrappedText | None = None


class VoyageRanked(BaseModel):
    """The same in Voyage's shape."""

    index: int
    relevance_score: float
    document: Text | None = None


class RerankResponse(BaseModel):
    """The documents, most similar first; once more as `data` for a request with Voyage's fields."""

    id: str
    model: str
    results: list[Ranked]
    data: list[VoyageRanked] | None = None
    usage: Usage


class TeiRanked(BaseModel):
    """The same in the shape of text-embeddings-inference."""

    index: int
    score: float
    text: str | None = None
