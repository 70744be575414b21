"""The bodies of Cohere's `/v2/embed` and of text-embeddings-inference's `/embed`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, model_validator

from antiphon.serving.schema import Body, Dimensions, Ids, Limit, ModelName, Prompted, Text, TruncationDirection


class CohereContent(Body):
    """A part of an input; there are only texts here."""

    type: Literal["text"]
    text: Text


class CohereInput(Body):
    """An input in parts, of which there can be one text."""

    content: Annotated[list[CohereContent], Field(min_length=1, max_length=1)]


class CohereEmbedRequest(Prompted):
    """Texts and the kinds of numbers that are wanted, as Cohere's clients send them."""

    texts: Annotated[list[Text], Field(min_length=1)] | None = None
    inputs: Annotated[list[CohereInput], Field(min_length=1)] | None = None
    model: ModelName = None
    embedding_types: Annotated[list[Literal["float", "base64"]], Field(min_length=1)] | None = None
    output_dimension: Dimensions = None
    max_tokens: Annotated[Limit, Field(description="Taken where no text is longer than that.")] = None
    truncate: Annotated[
        Literal["NONE", "START", "END"] | None, Field(description="NONE, START: a text that would be cut is refused.")
    ] = None
    priority: Annotated[StrictInt | None, Field(description="Not used.")] = None

    @model_validator(mode="after")
    def _one_list(self) -> CohereEmbedRequest:
        if (self.texts is None) == (self.inputs is None):
            raise ValueError("Give the texts to embed, as texts or as inputs of one text each.")
        return self

    @property
    def given(self) -> list[str]:
        """The texts."""
        return self.texts if self.texts is not None else [one.content[0].text for one in self.inputs or []]


class CohereEmbeddings(BaseModel):
    """The vectors by kind."""

    floats: Annotated[list[list[float]] | None, Field(alias="float")] = None
    base64: list[str] | None = None


class CohereEmbedResponse(BaseModel):
    """The vectors, in the order of the texts."""

    id: str
    embeddings: CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"]


class TeiEmbedRequest(Body):
    """Texts or token ids, as text-embeddings-inference's clients send them."""

    inputs: Annotated[
        Text | Annotated[list[Text], Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1)],
        Field(description="A text, texts, the token ids of a text, or of texts. An empty text is refused."),
    ]
    model: ModelName = None
    prompt_name: Annotated[StrictStr | None, Field(description="One of the model's prompts, by name.")] = None
    dimensions: Dimensions = None
    normalize: Annotated[Literal[True] | None, Field(description="Not used.")] = None
    truncate: Annotated[StrictBool | None, Field(description="false: a text that would be cut is refused.")] = None
    truncation_direction: TruncationDirection = None
