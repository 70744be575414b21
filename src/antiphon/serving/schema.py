"""The bodies of requests and answers: OpenAI's for embeddings, Cohere's and Jina's for reranking.

A field that other servers know and that changes nothing here is taken with the values under which that is so; every
other value of it is refused with a sentence (EXPECTED in error_responses).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from antiphon.text.template import Side

InputType = Literal["query", "document", "search_query", "search_document", "passage", "classification", "clustering"]
"""OpenAI-like servers' and Voyage's two, Cohere's four, NVIDIA's passage."""
JinaTask = Literal[
    "retrieval.query",
    "retrieval.passage",
    "retrieval",
    "text-matching",
    "classification",
    "clustering",
    "separation",
]
SIDES: dict[str, Side | None] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "search_document": "document",
    "passage": "document",
    "retrieval.passage": "document",
}
"""The side that a kind of input or a task stands for; those that are not here compare texts with their like, and such
texts are read as `encode` reads them."""
Text = StrictStr
Ids = Annotated[list[StrictInt], Field(min_length=1)]
ModelName = Annotated[StrictStr | None, Field(description="The id that /v1/models names; may be left out.")]
Limit = Annotated[StrictInt, Field(ge=1)] | None
Dimensions = Annotated[Limit, Field(description="Keep so many of the vector's first dimensions, at length 1 again.")]
TruncationDirection = Annotated[
    Literal["right", "Right", "left", "Left"] | None, Field(description="left: refused where a text would be cut.")
]
Truncate = StrictBool | Literal["NONE", "START", "END"] | None


class Body(BaseModel):
    """A request's body; a field that is not known is an error, for a misspelt one would change vectors silently."""

    model_config = ConfigDict(extra="forbid")


class WrappedText(Body):
    """A text, as Cohere's and Jina's clients may wrap it."""

    text: Text


class Prompted(Body):
    """How texts are read, by one of four ways to say it."""

    input_type: Annotated[
        InputType | None,
        Field(description="The side of a search; without it, what the model's encode does. Cohere's names are known."),
    ] = None
    task: Annotated[JinaTask | None, Field(description="Jina's name for what input_type says.")] = None
    prompt_name: Annotated[StrictStr | None, Field(description="One of the model's prompts, by name.")] = None
    prompt: Annotated[
        StrictStr | None, Field(max_length=8192, description="A prompt as it stands: sentence-transformers' prompt=.")
    ] = None
    instruction: Annotated[
        StrictStr | None, Field(max_length=8192, description="An instruction, put where the model's template wants it.")
    ] = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Prompted:
        given = [name for name in ("prompt_name", "prompt", "instruction") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are ways to say one thing; give one of them.")
        if self.input_type and self.task and SIDES.get(self.input_type) != SIDES.get(self.task):
            raise ValueError(f"input_type {self.input_type} and task {self.task} are not one side; give one of them.")
        return self

    @property
    def side(self) -> Side | None:
        """The side that the request names, None for neither."""
        named = self.input_type or self.task
        return None if named is None else SIDES.get(named)


class EmbeddingRequest(Prompted):
    """What OpenAI's clients send, how texts are read, and fields of other servers that change nothing."""

    input: Annotated[
        Text
        | Annotated[list[Text], Field(min_length=1)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1)]
        | Annotated[list[WrappedText], Field(min_length=1)],
        Field(description="A text, texts, the token ids of a text, or of texts. An empty text is refused."),
    ]
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Dimensions = None
    output_dimension: Annotated[Limit, Field(description="Voyage's and Mistral's name for dimensions.")] = None
    user: Annotated[StrictStr | None, Field(description="Not used.")] = None
    truncate_prompt_tokens: Annotated[
        Annotated[StrictInt, Field(ge=-1)] | None, Field(description="Taken where no text is longer than that.")
    ] = None
    truncate: Annotated[Truncate, Field(description="false and NONE: a text that would be cut is refused.")] = None
    truncation: Annotated[StrictBool | None, Field(description="Voyage's name for truncate.")] = None
    output_dtype: Annotated[Literal["float"] | None, Field(description="Not used.")] = None
    embedding_type: Annotated[Literal["float"] | None, Field(description="Not used.")] = None
    encoding_type: Annotated[Literal["float"] | None, Field(description="Not used.")] = None
    normalized: Annotated[Literal[True] | None, Field(description="Not used.")] = None
    normalize: Annotated[Literal[True] | None, Field(description="Not used.")] = None
    late_chunking: Annotated[Literal[False] | None, Field(description="Not used.")] = None
    add_special_tokens: Annotated[Literal[True] | None, Field(description="Not used.")] = None
    priority: Annotated[StrictInt | None, Field(description="Not used.")] = None
    request_id: Annotated[StrictStr | None, Field(description="Not used.")] = None


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
