"""The bodies of requests and answers: OpenAI's for embeddings, Cohere's and Jina's for reranking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

InputType = Literal["query", "document"]
Text = StrictStr
Ids = Annotated[list[StrictInt], Field(min_length=1)]
ModelName = Annotated[StrictStr | None, Field(description="The id that /v1/models names; may be left out.")]


class Body(BaseModel):
    """A request's body; a field that is not known is an error, for a misspelt one would change vectors silently."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingRequest(Body):
    """What OpenAI's clients send, and the two fields of ours for the side of a search."""

    input: Annotated[
        Text | Annotated[list[Text], Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1)],
        Field(description="A text, texts, the token ids of a text, or of texts. An empty text is refused."),
    ]
    model: ModelName = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[
        Annotated[StrictInt, Field(ge=1)] | None,
        Field(description="Keep so many of the vector's first dimensions, at length 1 again."),
    ] = None
    user: Annotated[StrictStr | None, Field(description="Not used.")] = None
    input_type: Annotated[
        InputType | None, Field(description="The side of a search; without it, what the model's encode does.")
    ] = None
    prompt_name: Annotated[StrictStr | None, Field(description="One of the model's prompts, by name.")] = None


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the texts themselves, without template, instruction and special tokens, before any cutting."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """The vectors, in the order of the input."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: Usage


class ModelCard(BaseModel):
    """A model of the server."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    dimensions: int
    max_tokens: int | None
    prompt_names: list[str]


class ModelList(BaseModel):
    """The models of the server."""

    object: Literal["list"]
    data: list[ModelCard]


class Document(BaseModel):
    """A document, as Cohere's and Jina's clients may wrap it."""

    text: Text


class RerankRequest(Body):
    """A query and the documents to put in order."""

    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    model: ModelName = None
    top_n: Annotated[
        Annotated[StrictInt, Field(ge=1)] | None, Field(description="Return so many of the best; all without it.")
    ] = None
    return_documents: Annotated[bool, Field(description="Send the documents' texts back.")] = False


class Ranked(BaseModel):
    """A document's place in the request and its cosine with the query."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankResponse(BaseModel):
    """The documents, most similar first."""

    id: str
    model: str
    results: list[Ranked]
    usage: Usage


class ErrorDetail(BaseModel):
    """What went wrong, in one sentence."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """OpenAI's shape of an error."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "The request cannot be answered; `message` says why."},
    "5XX": {"model": ErrorResponse, "description": "The server failed or is shutting down."},
}
"""The answers beside 200 that every route documents."""
